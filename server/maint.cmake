# What keeps a member in order: the Maintenance service, space, compaction, the check of the members
# against each other. Included by CMakeLists.txt of this folder.
add_library(holdfast_server_maint STATIC
  compactor.cc divergence.cc divergence_checker.cc downgrade.cc maintenance_service.cc
  session_clock.cc session_service.cc snapshot_stream.cc space_guard.cc state_hash.cc
  thread_policy.cc)
target_link_libraries(holdfast_server_maint
  PUBLIC holdfast_server_kv holdfast_server_member holdfast_server_peer
  PRIVATE OpenSSL::Crypto)
