holdfast_test(server_mirror_test server
  SOURCES client_table_test.cc load_admission_test.cc mirror_service_test.cc
  LIBS holdfast_server_mirror)
