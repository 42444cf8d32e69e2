# libholdfast.so: the C interface (holdfast/holdfast.h) and nothing else. The C++ interface is in the
# static library alone: its binary form hangs on the compiler, the standard library and Abseil's
# release, and no soname could promise that.
set(holdfast_soversion ${PROJECT_VERSION_MAJOR})
if(PROJECT_VERSION_MAJOR EQUAL 0)  # before 1.0 a minor version may break
  set(holdfast_soversion 0.${PROJECT_VERSION_MINOR})
endif()

# The objects of the static library: nothing is compiled twice.
add_library(holdfast_c SHARED
  $<TARGET_OBJECTS:holdfast_client> $<TARGET_OBJECTS:holdfast_base> $<TARGET_OBJECTS:holdfast_api>)
add_library(holdfast::c ALIAS holdfast_c)
set_target_properties(holdfast_c PROPERTIES
  OUTPUT_NAME holdfast EXPORT_NAME c
  VERSION ${PROJECT_VERSION} SOVERSION ${holdfast_soversion}
  LINKER_LANGUAGE CXX
  LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/holdfast.map)
target_include_directories(holdfast_c
  INTERFACE $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
            $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
# nodelete: the library's threads outlive a dlclose.
target_link_options(holdfast_c PRIVATE
  -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/holdfast.map -Wl,-z,defs -Wl,-z,nodelete)
# Who links it needs none of these at hand.
target_link_libraries(holdfast_c PRIVATE
  $<BUILD_INTERFACE:absl::any_invocable> $<BUILD_INTERFACE:absl::status>
  $<BUILD_INTERFACE:absl::statusor> $<BUILD_INTERFACE:absl::strings> $<BUILD_INTERFACE:absl::time>
  $<BUILD_INTERFACE:absl::flat_hash_map> $<BUILD_INTERFACE:absl::btree>
  $<BUILD_INTERFACE:absl::synchronization> $<BUILD_INTERFACE:gRPC::grpc++>
  $<BUILD_INTERFACE:protobuf::libprotobuf> $<BUILD_INTERFACE:spdlog::spdlog>
  $<BUILD_INTERFACE:isal>)
add_dependencies(holdfast_c holdfast_api)

install(TARGETS holdfast_c EXPORT holdfast_c_targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT holdfast_client)
install(EXPORT holdfast_c_targets NAMESPACE holdfast:: FILE holdfastCTargets.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/holdfast COMPONENT holdfast_client)

# pkg-config: holdfast (the C interface) and holdfast++ (the C++ one, static).
file(RELATIVE_PATH holdfast_pc_to_prefix /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
foreach(pc holdfast holdfast++)
  configure_file(pkgconfig/${pc}.pc.in ${CMAKE_CURRENT_BINARY_DIR}/${pc}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${pc}.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT holdfast_client)
endforeach()
