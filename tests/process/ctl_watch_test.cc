// holdfastctl watch against real members: what it prints, and that it goes on at another member.
#include <mutex>
#include <sstream>
#include <streambuf>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "client/ctl/watch_command.h"
#include "tests/process/process_util.h"

namespace holdfast::ctl {
namespace {

// A stream that one thread writes and another looks at.
class SharedText : public std::streambuf {
 public:
  std::string text() const {
    std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  int_type overflow(int_type c) override {
    std::lock_guard lock(mutex_);
    text_.push_back(static_cast<char>(c));
    return c;
  }
  std::streamsize xsputn(const char* bytes, std::streamsize n) override {
    std::lock_guard lock(mutex_);
    text_.append(bytes, static_cast<size_t>(n));
    return n;
  }

  mutable std::mutex mutex_;
  std::string text_;
};

TEST(CtlWatch, PrintsEachChangeOnceOverTheDeathOfAMemberAndTellsTheAge) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Common common;
  for (int i = 0; i < 3; ++i) common.endpoints.push_back(cluster->endpoint(i));
  common.timeout = absl::Seconds(5);
  std::istringstream none;
  std::ostringstream ignored;
  const Io quiet{none, ignored, ignored};
  ASSERT_EQ(Put(common, "w/a", "1", quiet), kOk);

  SharedText printed, said;
  ExitCode code = kOk;
  std::thread watcher([&] {
    std::ostream out(&printed), err(&said);
    code =
        Watch(common, {.key = "w/", .prefix = true, .revision = 1, .age = true}, {none, out, err});
  });
  EXPECT_TRUE(Eventually([&] { return printed.text() == "PUT\nw/a\n1\n"; })) << printed.text();
  EXPECT_TRUE(Eventually([&] { return said.text().find("age=0.") != std::string::npos; }))
      << said.text();
  // The first endpoint is the one that serves the watch.
  EXPECT_TRUE(cluster->Kill(0).ok());
  EXPECT_TRUE(Eventually([&] { return Put(common, "w/b", "2", quiet) == kOk; }));
  EXPECT_TRUE(Eventually([&] { return Delete(common, "w/a", false, quiet) == kOk; }));
  EXPECT_TRUE(Eventually([&] { return printed.text().ends_with("DELETE\nw/a\n\n"); }))
      << printed.text();
  const std::string text = printed.text();
  EXPECT_EQ(text.find("PUT\nw/a\n1\n"), text.rfind("PUT\nw/a\n1\n")) << text;
  EXPECT_NE(text.find("PUT\nw/b\n2\n"), std::string::npos) << text;
  EXPECT_TRUE(cluster->Kill(1).ok());
  EXPECT_TRUE(cluster->Kill(2).ok());
  watcher.join();
  EXPECT_EQ(code, kUnavailable) << said.text();
}

}  // namespace
}  // namespace holdfast::ctl
