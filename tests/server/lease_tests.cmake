holdfast_test(server_lease_test server
  SOURCES lessor_core_test.cc lessor_world.cc lease_apply_test.cc lease_service_test.cc
  LIBS holdfast_server_lease)
