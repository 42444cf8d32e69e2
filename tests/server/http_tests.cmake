holdfast_test(server_http_test server
  SOURCES http_gateway_test.cc http_server_test.cc
  LIBS holdfast_server_http)
