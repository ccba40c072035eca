// Which filters are attached to which exports, and which images filters name.
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

// The named filters of each export that has some, and the images that its inline filters name, in
// memory: from before its row says so until after its row says otherwise. While a change may yet be
// taken back, what an export had before is attached, too. An export gets a filter, or an image,
// under a lock of it, so that whoever holds that alone knows all of them. For filters, in the place
// of an export, the images that they name. Owned by the domain; any thread.
class FilterAttachments {
 public:
  FilterAttachments() = default;
  FilterAttachments(const FilterAttachments&) = delete;
  FilterAttachments& operator=(const FilterAttachments&) = delete;

  // The row that is about to be written says that `export_name` has `attached`, filters and images,
  // and that is what is told from now on. What it had is still attached until Settle().
  void Tell(const std::string& export_name, const std::vector<std::string>& attached);
  // The row is written, for good.
  void Settle(const std::string& export_name);
  // There is no such export any more.
  void Remove(const std::string& export_name);

  // What of the export has been told otherwise since the last Settle().
  std::vector<std::string> Changed(const std::string& export_name) const;
  // In the order of their names.
  std::vector<std::string> ExportsOf(const std::string& filter) const;
  // Those that are told.
  std::vector<std::string> ToldOf(const std::string& filter) const;
  // The exports that have a filter which names the image, in the order of their names.
  std::set<std::string> UsersOf(const std::string& image) const;
  // Those that are told.
  std::set<std::string> ToldUsersOf(const std::string& image) const;

 private:
  using Names = std::set<std::string>;
  struct Entry {
    Names attached;
    Names told;
    Names changed;  // see Changed()
  };

  // Under the lock: makes `attached` those of the export.
  void Attach(const std::string& export_name, Names attached);
  Names HoldersOf(const std::string& name, bool told) const;
  Names UsersOf(const std::string& image, bool told) const;

  mutable std::mutex mutex_;
  std::map<std::string, Entry> exports_;
  std::map<std::string, Names> by_filter_;  // or by image: what it is attached to
};

}  // namespace gabion::service
