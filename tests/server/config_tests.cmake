holdfast_test(server_config_test server
  SOURCES config_flags_test.cc config_identity_test.cc config_data_dir_test.cc
          config_services_test.cc thread_policy_test.cc
  LIBS holdfast_server_maint holdfast_server_member)
holdfast_test(server_member_test server
  SOURCES member_changes_test.cc member_join_test.cc
  LIBS holdfast_server_maint holdfast_server_member)
holdfast_test(server_backup_test server SOURCES backup_test.cc
  LIBS holdfast_server_member holdfast_raft_log OpenSSL::Crypto nlohmann_json::nlohmann_json)
holdfast_test(server_member_process_test process
  SOURCES member_process_test.cc
  LIBS holdfast_local_cluster absl::strings absl::time)
add_dependencies(server_member_process_test holdfastd holdfastctl)
target_compile_definitions(server_config_test PRIVATE
  HOLDFAST_DOCS_DIR="${PROJECT_SOURCE_DIR}/docs")
