holdfast_test(server_config_test server
  SOURCES config_flags_test.cc config_identity_test.cc config_data_dir_test.cc
          config_services_test.cc
  LIBS holdfast_server_member)
target_compile_definitions(server_config_test PRIVATE
  HOLDFAST_DOCS_DIR="${PROJECT_SOURCE_DIR}/docs")
