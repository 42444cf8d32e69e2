# Mirrors of clients: loading their copies, and what they report.
add_library(holdfast_load_admission STATIC load_admission.cc)
target_link_libraries(holdfast_load_admission PUBLIC holdfast_base)
add_library(holdfast_server_mirror STATIC
  client_table.cc load_stream.cc mirror_service.cc prefix_summaries.cc)
target_link_libraries(holdfast_server_mirror PUBLIC
  holdfast_load_admission holdfast_server_http holdfast_server_kv)
