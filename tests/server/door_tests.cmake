holdfast_test(server_door_test server
  SOURCES door_cases.cc door_member.cc door_test.cc door_unary.cc exchange_caller.cc
          exchange_random_test.cc exchange_stream_test.cc
  LIBS holdfast_server_exchange)
