# The batch door.
add_library(holdfast_server_exchange STATIC
  exchange_codec.cc
  exchange_request.cc
  exchange_service.cc
  exchange_stream.cc)
target_link_libraries(holdfast_server_exchange PUBLIC holdfast_server_http holdfast_server_kv)
