#include "server/identity.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

uint64_t Sha1Prefix(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const int ok = EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha1(), nullptr);
  CHECK_MSG(ok == 1, "OpenSSL refuses SHA-1: check its configuration (openssl.cnf)");
  CHECK(size >= sizeof(uint64_t));
  return base::ReadBigEndian64({reinterpret_cast<const char*>(digest), sizeof(uint64_t)});
}

}  // namespace

NodeId MemberId(std::vector<std::string> peer_urls, std::string_view token) {
  std::ranges::sort(peer_urls);
  std::string text;
  for (const std::string& url : peer_urls) text += url;
  text += token;
  return NodeId(Sha1Prefix(text));
}

uint64_t ClusterId(std::vector<NodeId> members) {
  std::ranges::sort(members);
  std::string bytes;
  for (const NodeId id : members) base::AppendBigEndian64(bytes, id.value);
  return Sha1Prefix(bytes);
}

absl::StatusOr<Identity> IdentityOf(const Config& config) {
  Identity identity;
  for (const ClusterMember& member : config.initial_cluster) {
    std::vector<std::string> urls = ToStrings(member.peer_urls);
    const NodeId id = MemberId(urls, config.initial_cluster_token);
    if (!id || identity.bootstrap.Contains(id)) {
      return absl::InvalidArgumentError(
          fmt::format("member '{}' gets the unusable id {:x}: choose another "
                      "--initial-cluster-token, the same on all members",
                      member.name, id.value));
    }
    identity.bootstrap.voters.insert(id);
    identity.bootstrap.peer_urls.emplace(id, std::move(urls));
    if (member.name == config.name) identity.self = id;
  }
  identity.cluster_id = ClusterId(identity.bootstrap.All());
  CHECK(bool(identity.self));
  return identity;
}

absl::StatusOr<Identity> IdentityOf(const Config& config, const DataDir::Owner& found) {
  Identity identity;
  identity.cluster_id = found.cluster_id;
  identity.self = found.member_id;
  // What the flags say counts no more; but if they are those of this cluster's first start and of
  // another of its members, then two members' directories were mixed up.
  const absl::StatusOr<Identity> flags = IdentityOf(config);
  const bool founding = flags.ok() && flags->cluster_id == found.cluster_id;
  if (founding && flags->self != found.member_id && flags->bootstrap.Contains(found.member_id)) {
    return absl::FailedPreconditionError(fmt::format(
        "{} belongs to member {:x} ('{}'), --name={} is member {:x} of this cluster: every member "
        "needs a --data-dir of its own",
        config.data_dir, found.member_id.value, base::Printable(found.name), config.name,
        flags->self.value));
  }
  if (found.bootstrap.empty()) {
    if (founding) identity.bootstrap = flags->bootstrap;
    return identity;
  }
  absl::StatusOr<raft::Membership> bootstrap = raft::Membership::Decode(found.bootstrap);
  if (!bootstrap.ok()) {
    return absl::DataLossError(
        fmt::format("member.json in {} is damaged (its \"bootstrap\"): bring it back from a backup",
                    config.data_dir));
  }
  identity.bootstrap = *std::move(bootstrap);
  return identity;
}

}  // namespace holdfast::server
