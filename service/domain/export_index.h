// Which exports there are, by what must be unique or is asked for often.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "service/domain/filter_attachments.h"

namespace gabion::service {

inline constexpr std::string_view kExports = "exports";
inline constexpr std::string_view kExportType = "gabion/Export";

// The wire names in use, and the exports of each image, in memory. An export is here from before
// its row is written until after its row is gone. Its images are the one that it serves, and those
// that its filters name. Owned by the domain; any thread.
class ExportIndex {
 public:
  // `attachments` outlives the index.
  explicit ExportIndex(const FilterAttachments& attachments) : attachments_(attachments) {}
  ExportIndex(const ExportIndex&) = delete;
  ExportIndex& operator=(const ExportIndex&) = delete;

  // Takes `nbd_name` for `export_name`. The export that has it already, if there is one; then
  // nothing changes.
  std::optional<std::string> Add(const std::string& export_name, const std::string& nbd_name,
                                 const std::string& image);
  void Remove(const std::string& export_name);
  // From now on it is no export of its images, though it keeps its names: written before its row
  // goes, so that who sees the row gone sees no dependent either.
  void Unlink(const std::string& export_name);
  // It is one again.
  void Link(const std::string& export_name, const std::string& image);

  // The export that has that wire name.
  std::optional<std::string> OwnerOf(const std::string& nbd_name) const;

  // How many there are: one that is none of its images any more does not count.
  std::size_t size() const;
  // In the order of their names; of one image, or of all. Also those that have changed their
  // filters, as long as that may yet be taken back; or as it is told.
  std::vector<std::string> All() const;
  std::vector<std::string> ExportsOf(const std::string& image) const;
  std::vector<std::string> ToldExportsOf(const std::string& image) const;

 private:
  struct Entry {
    std::string nbd_name;
    std::string image;  // empty: unlinked
  };

  std::vector<std::string> WithThoseOf(const std::string& image, std::set<std::string> users) const;
  void UnlinkLocked(const std::string& export_name, Entry* entry);

  const FilterAttachments& attachments_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> exports_;
  std::map<std::string, std::string> by_nbd_name_;
  std::map<std::string, std::set<std::string>> by_image_;
  std::size_t linked_ = 0;  // in by_image_
};

}  // namespace gabion::service
