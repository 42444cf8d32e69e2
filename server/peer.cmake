# Members talking to each other over gRPC. Included by CMakeLists.txt of this folder.
add_library(holdfast_server_peer STATIC
  peer_channel.cc peer_codec.cc peer_disks.cc peer_snapshot_assembler.cc peer_snapshot_partials.cc
  peer_snapshot_receiver.cc peer_snapshot_sender.cc peer_stream.cc peer_transport.cc)
target_link_libraries(holdfast_server_peer PUBLIC holdfast_api holdfast_grpc_status holdfast_raft_log holdfast_raft)
