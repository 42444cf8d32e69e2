# etcd's Election and Lock services. They know the server only through its public services, over a
# channel: nothing below is linked.
add_library(holdfast_server_concurrency STATIC
  candidacy.cc caller_terms.cc election_service.cc inner_client.cc inner_watch.cc lock_service.cc
  observation.cc queue_wait.cc retry_pause.cc strand.cc waiting_calls.cc)
target_link_libraries(holdfast_server_concurrency PUBLIC
  holdfast_grpc_status holdfast_api holdfast_base absl::any_invocable absl::flat_hash_map
  absl::synchronization)
