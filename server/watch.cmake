# Watching: the hub that follows what is applied, and etcd's Watch service over it.
add_library(holdfast_server_watch STATIC
  watch_catch_up.cc watch_codec.cc watch_hub.cc watch_index.cc watch_service.cc watch_stream.cc)
target_link_libraries(holdfast_server_watch PUBLIC holdfast_server_kv)
