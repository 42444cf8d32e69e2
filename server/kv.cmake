# The KV path of one member: validation, pipeline, state machine, the etcd KV service.
add_library(holdfast_server_kv STATIC
  admission.cc alarm_set.cc apply_check.cc apply_command.cc apply_lease.cc
  apply_session.cc
  command_keys.cc
  db_directory.cc
  kv_codec.cc
  kv_reads.cc
  kv_service.cc kv_validate.cc lease_record.cc range_stream.cc
  read_terms.cc request_pipeline.cc session_stamp.cc session_table.cc responders.cc
  scan_pool.cc state_machine.cc txn_execution.cc)
target_link_libraries(holdfast_server_kv PUBLIC
  holdfast_grpc_status holdfast_api holdfast_mvcc absl::any_invocable absl::function_ref absl::span
  PRIVATE xxhash)
