# Leases: the leader's knowledge of their time, and etcd's Lease service.
add_library(holdfast_server_lease STATIC
  lease_clock.cc lease_router.cc lease_service.cc lease_stream.cc lease_table.cc lessor.cc lessor_core.cc
  peer_lease_service.cc)
target_link_libraries(holdfast_server_lease PUBLIC
  holdfast_server_member holdfast_server_kv holdfast_server_peer absl::flat_hash_set
  absl::flat_hash_map absl::hash)
