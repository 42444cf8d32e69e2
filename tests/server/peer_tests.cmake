holdfast_test(server_peer_test server
  SOURCES ../storage_log/fault_file_system.cc peer_assembler_test.cc peer_codec_test.cc
          peer_snapshot_resume_test.cc peer_snapshot_test.cc peer_snapshot_test_util.cc
          peer_test_proxy.cc peer_test_util.cc peer_transport_test.cc
  LIBS holdfast_server_peer)
