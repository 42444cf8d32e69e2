#include "server/command_keys.h"

#include <cstdint>

#include "etcd/rpc.pb.h"
#include "holdfast/command.pb.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using etcdserverpb::Compare;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::PutRequest;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;

// Protocol buffers' wire types.
enum : uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

bool TakeVarint(std::string_view* in, uint64_t* value) {
  uint64_t result = 0;
  for (size_t i = 0; i < in->size() && i < 10; ++i) {
    const auto byte = static_cast<uint8_t>((*in)[i]);
    result |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      in->remove_prefix(i + 1);
      *value = result;
      return true;
    }
  }
  return false;
}

// Calls `visit(field, bytes)` for each length delimited field, up to what cannot be read.
template <class Visit>
void ForEachField(std::string_view message, Visit visit) {
  uint64_t tag = 0;
  while (TakeVarint(&message, &tag)) {
    uint64_t size = 0;
    switch (tag & 7) {
      case kVarint:
        if (!TakeVarint(&message, &size)) return;
        continue;
      case kFixed64:
        size = 8;
        break;
      case kFixed32:
        size = 4;
        break;
      case kLengthDelimited:
        if (!TakeVarint(&message, &size)) return;
        break;
      default:
        return;
    }
    if (size > message.size()) return;
    if ((tag & 7) == kLengthDelimited) visit(static_cast<int>(tag >> 3), message.substr(0, size));
    message.remove_prefix(size);
  }
}

// Adds the field `key_field`, unless there is a range.
void AppendKey(std::string_view message, int key_field, int range_end_field,
               std::vector<std::string_view>* keys) {
  std::string_view key;
  bool range = false;
  ForEachField(message, [&](int field, std::string_view bytes) {
    if (field == key_field) key = bytes;
    if (field == range_end_field && !bytes.empty()) range = true;
  });
  if (!key.empty() && !range) keys->push_back(key);
}

void AppendPutKey(std::string_view put, std::vector<std::string_view>* keys) {
  AppendKey(put, PutRequest::kKeyFieldNumber, /*range_end_field=*/0, keys);
}

void AppendDeleteKey(std::string_view request, std::vector<std::string_view>* keys) {
  AppendKey(request, DeleteRangeRequest::kKeyFieldNumber, DeleteRangeRequest::kRangeEndFieldNumber,
            keys);
}

void AppendTxnKeys(std::string_view txn, std::vector<std::string_view>* keys) {
  ForEachField(txn, [keys](int field, std::string_view part) {
    if (field == TxnRequest::kCompareFieldNumber) {
      AppendKey(part, Compare::kKeyFieldNumber, Compare::kRangeEndFieldNumber, keys);
      return;
    }
    ForEachField(part, [keys](int op, std::string_view bytes) {
      if (op == RequestOp::kRequestPutFieldNumber) AppendPutKey(bytes, keys);
      if (op == RequestOp::kRequestDeleteRangeFieldNumber) AppendDeleteKey(bytes, keys);
    });
  });
}

}  // namespace

void AppendCommandKeys(std::string_view command, std::vector<std::string_view>* keys) {
  ForEachField(command, [keys](int field, std::string_view bytes) {
    if (field == Command::kPutFieldNumber) AppendPutKey(bytes, keys);
    if (field == Command::kDeleteRangeFieldNumber) AppendDeleteKey(bytes, keys);
    if (field == Command::kTxnFieldNumber) AppendTxnKeys(bytes, keys);
  });
}

}  // namespace holdfast::server
