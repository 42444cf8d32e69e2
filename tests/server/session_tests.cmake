holdfast_test(session_service_test server SOURCES session_service_test.cc
  LIBS holdfast_server_maint)
