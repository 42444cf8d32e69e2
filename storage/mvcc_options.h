// RocksDB's options for the MVCC store, with the reason for each that is not a default.
#pragma once

#include <memory>

#include <rocksdb/listener.h>
#include <rocksdb/options.h>

#include "storage/mvcc_database.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage::mvcc {

inline constexpr char kCurrentFamily[] = "current";
inline constexpr char kHistoryFamily[] = "history";

struct RocksOptions {
  rocksdb::DBOptions db;
  rocksdb::ColumnFamilyOptions current;
  rocksdb::ColumnFamilyOptions history;
  rocksdb::ColumnFamilyOptions meta;
};

RocksOptions MakeRocksOptions(const MvccStore::Options& options,
                              std::shared_ptr<ReclaimHorizon> horizon,
                              std::shared_ptr<BackgroundErrors> errors);

}  // namespace holdfast::storage::mvcc
