// The process_* metrics that every Prometheus client library has, read from /proc at the scrape.
#pragma once

#include "server/metrics.h"

namespace holdfast::server {

void AddProcessMetrics(MetricsRegistry* registry);

}  // namespace holdfast::server
