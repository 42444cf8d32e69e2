# Beside a real etcd, where it is installed.
holdfast_test(server_concurrency_test process
  SOURCES concurrency_compare_test.cc concurrency_faults_test.cc concurrency_test.cc
          concurrency_test_util.cc
  LIBS holdfast_server_concurrency holdfast_local_cluster)
add_dependencies(server_concurrency_test holdfastd)
