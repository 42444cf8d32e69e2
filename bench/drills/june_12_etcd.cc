#include "bench/drills/june_12_etcd.h"

namespace holdfast::bench {
namespace {

std::string KeyOf(Need need) {
  switch (need) {
    case Need::kConfig:
      return kConfigKey;
    case Need::kIdentity:
      return kAuthKey;
    case Need::kSession:
      return std::string(kSessionPrefix) + "1";
    case Need::kToken:
      return std::string(kTokenPrefix) + "1";
    case Need::kRegistration:
      break;
  }
  return "/registrations/1";
}

CallOutcome Failed(const absl::Status& status) {
  return status.ok() ? CallOutcome::kServed : CallOutcome::kFailed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EtcdTown>> EtcdTown::Start(DrillRun& run, double calls_per_second) {
  std::unique_ptr<EtcdTown> town(new EtcdTown());
  auto store = DrillStore::Start(run, {.etcd = true});
  if (!store.ok()) return store.status();
  town->store_ = *std::move(store);
  EtcdReader filler(town->store_->direct());
  for (const Product& product : ProductsOfJune12()) {
    const absl::Status put = filler.Put(KeyOf(product.need), std::string(300, 'x'));
    if (!put.ok()) return put;
  }
  for (const bool serializable : {false, true}) {
    for (const Product& product : ProductsOfJune12()) {
      Track* const track = run.timeline().AddTrack(product.name);
      EtcdReader* const reader =
          town->readers_.emplace_back(std::make_unique<EtcdReader>(town->store_->direct())).get();
      town->tracks_[serializable ? 1 : 0].push_back(track);
      town->callers_.push_back(std::make_unique<Caller>(
          calls_per_second, track,
          [reader, serializable, need = product.need, key = KeyOf(product.need)](int64_t) {
            if (need == Need::kRegistration) return reader->Put(key, "registered");
            return reader->Get(key, serializable).status();
          },
          Failed));
    }
  }
  return town;
}

void EtcdTown::Stop() {
  for (const auto& caller : callers_) caller->Stop();
}

std::vector<const Track*> EtcdTown::Reads(bool serializable) const {
  std::vector<const Track*> tracks;
  for (size_t i = 0; i < ProductsOfJune12().size(); ++i) {
    if (ProductsOfJune12()[i].need == Need::kRegistration) continue;
    tracks.push_back(tracks_[serializable ? 1 : 0][i]);
  }
  return tracks;
}

}  // namespace holdfast::bench
