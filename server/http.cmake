# The client port: gRPC and HTTP/1.1 on one socket, the JSON gateway, health, metrics.
find_library(HTTP_PARSER http_parser REQUIRED)
# prometheus-cpp's own CMake package asks for what its pull and push parts need; only its core is.
find_library(PROMETHEUS_CPP_CORE prometheus-cpp-core REQUIRED)
add_library(holdfast_server_http STATIC
  client_acceptor.cc client_port.cc event_loop.cc gateway.cc gateway_codec.cc gateway_routes.cc gateway_stream.cc
  health.cc http_connection.cc http_message.cc http_server.cc measured_storage.cc metrics.cc
  process_metrics.cc rpc_metrics.cc server_metrics.cc)
target_link_libraries(holdfast_server_http
  PUBLIC holdfast_server_member absl::any_invocable
  PRIVATE ${HTTP_PARSER} ${PROMETHEUS_CPP_CORE})
