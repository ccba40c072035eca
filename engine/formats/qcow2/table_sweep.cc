#include "engine/formats/qcow2/table_sweep.h"

#include <algorithm>

namespace gabion::qcow2 {

void TableSweep::Add(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  edges_.push_back({offset, true});
  edges_.push_back({offset + length, false});
}

std::vector<SweepRun> TableSweep::Runs() const {
  std::vector<Edge> edges = edges_;
  std::sort(edges.begin(), edges.end(),
            [](const Edge& a, const Edge& b) { return a.offset < b.offset; });
  std::vector<SweepRun> runs;
  uint64_t from = 0;
  uint64_t tables = 0;
  for (const Edge& edge : edges) {
    if (tables > 0 && edge.offset > from) runs.push_back({from, edge.offset - from, tables});
    from = edge.offset;
    tables += edge.begins ? 1 : -1;
  }
  return runs;
}

}  // namespace gabion::qcow2
