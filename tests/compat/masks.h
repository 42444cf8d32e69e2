// What differs between two servers without meaning anything: ids, ports, terms, indexes, sizes, and
// where a store's revisions happen to stand. Each has a symbol in the output; nothing else is
// hidden.
//
// - ids of the cluster and its members: <cluster>, <leader>, <follower> (as at the case's start);
//   other large ids by their first appearance in the case: <id1>, <id2>. Small ones as they are.
// - revisions relative to the store's at the case's start: R, R+1, R-2. 0 stays 0.
// - raft terms <term>, raft indexes <index>, sizes on disk <bytes>, hashes <hash>; 0 stays 0.
// - endpoints, peer URLs and directories, wherever they stand in a text.
//
// Threads: one at a time.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::compat {

class Masks {
 public:
  void SetBaseRevision(int64_t revision) { base_revision_ = revision; }
  // `text` stands for `symbol` from now on. Short texts (below 5 bytes) are left alone.
  void Know(const std::string& text, const std::string& symbol);
  // The same for an id, in decimal and in hexadecimal.
  void KnowId(uint64_t id, const std::string& symbol);

  // A message on one line, fields in the order of their numbers, each as its name tells.
  std::string Print(const google::protobuf::Message& message);
  // A text of a program or an HTTP body: JSON lines by their keys (which lose their order),
  // etcdctl's `"Field" : value` lines by their names, tables by their headings, else known texts.
  std::string Text(const std::string& text);
  // JSON alone.
  std::string Json(const std::string& text);

 private:
  std::string Number(std::string_view field, uint64_t value, bool is_signed);
  std::string Id(uint64_t id);
  std::string Known(std::string text) const;
  std::string Line(const std::string& line);
  std::string TableRow(const std::string& line, std::vector<std::string>* headings);
  void MaskJson(const std::string& key, nlohmann::json& value);
  void FindIds(const google::protobuf::Message& message);
  std::string PrintFields(const google::protobuf::Message& message);
  std::string PrintValue(const google::protobuf::Message& message,
                         const google::protobuf::FieldDescriptor& field, int index);

  int64_t base_revision_ = 0;
  int ids_seen_ = 0;
  std::map<uint64_t, std::string> ids_;
  std::vector<std::pair<std::string, std::string>> known_;  // longest first
};

}  // namespace holdfast::compat
