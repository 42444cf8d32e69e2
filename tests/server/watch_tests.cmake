holdfast_test(server_watch_test server
  SOURCES watch_hub_test.cc watch_index_test.cc watch_model_test.cc watch_service_test.cc
          watch_test_world.cc
  LIBS holdfast_server_watch)
