// Which filters are attached to which exports.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace gabion::service {

inline constexpr std::string_view kFilters = "filters";
inline constexpr std::string_view kFilterType = "gabion/Filter";

// The named filters of each export that has some, in memory: from before its row says so until
// after its row says otherwise. While a change may yet be taken back, what an export had before is
// attached, too. An export gets a filter under a lock of that filter, so that whoever holds it
// alone knows all of them. Owned by the domain; any thread.
class FilterAttachments {
 public:
  FilterAttachments() = default;
  FilterAttachments(const FilterAttachments&) = delete;
  FilterAttachments& operator=(const FilterAttachments&) = delete;

  // The row that is about to be written says that `export_name` has `filters`, and that is what is
  // told from now on. What it had is still attached until Settle().
  void Tell(const std::string& export_name, const std::vector<std::string>& filters);
  // The row is written, for good.
  void Settle(const std::string& export_name);
  // There is no such export any more.
  void Remove(const std::string& export_name);

  // The filters of the export that have been told otherwise since the last Settle().
  std::vector<std::string> Changed(const std::string& export_name) const;
  // In the order of their names.
  std::vector<std::string> ExportsOf(const std::string& filter) const;
  // Those that are told.
  std::vector<std::string> ToldOf(const std::string& filter) const;

 private:
  using Names = std::set<std::string>;
  struct Entry {
    Names attached;
    Names told;
    Names changed;  // see Changed()
  };

  // Under the lock: makes `attached` those of the export.
  void Attach(const std::string& export_name, Names attached);

  mutable std::mutex mutex_;
  std::map<std::string, Entry> exports_;
  std::map<std::string, Names> by_filter_;  // exports that it is attached to
};

}  // namespace gabion::service
