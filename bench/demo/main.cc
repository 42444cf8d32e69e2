// holdfast-demo: a real cluster, real configuration, members killed, every answer with its age.
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "bench/demo/demo.h"

int main(int argc, char** argv) {
  using holdfast::bench::Demo;
  holdfast::bench::DemoOptions options{
      holdfast::bench::BinaryBesideOwn("holdfastd"),
      holdfast::bench::BinaryBesideOwn("holdfast_example_config_service"), ""};
  CLI::App app("Runs Holdfast's main job on real input and prints what it measured.");
  app.add_option("--holdfastd", options.holdfastd, "the server binary");
  app.add_option("--service", options.service, "the example service");
  app.add_option("--data-dir-root", options.root, "where the data directories go");
  CLI11_PARSE(app, argc, argv);

  fmt::print("Holdfast demo: three members on this machine, real configuration, an outage.\n\n");
  Demo demo(options);
  const struct {
    const char* name;
    absl::Status (Demo::*run)();
  } steps[] = {
      {"start", &Demo::Start},
      {"load", &Demo::Load},
      {"compare", &Demo::Compare},
      {"kill the leader", &Demo::KillLeader},
      {"kill a second member", &Demo::KillSecond},
      {"restart the survivor", &Demo::RestartSurvivor},
      {"bring all back", &Demo::BringAllBack},
  };
  for (const auto& step : steps) {
    const absl::Status done = (demo.*step.run)();
    if (!done.ok()) {
      fmt::print(stderr, "\nthe demo stopped at '{}': {}\n", step.name, done.ToString());
      return 1;
    }
  }
  fmt::print("\n| step | measured | |\n|---|---|---|\n");
  for (const auto& row : demo.rows()) {
    fmt::print("| {} | {} | {} |\n", row.step, row.measured, row.ok ? "ok" : "FAIL");
  }
  fmt::print("\n{}\n", demo.ok() ? "Everything held." : "Something did not hold: see FAIL above.");
  return demo.ok() ? 0 : 1;
}
