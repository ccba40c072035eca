// What the API promises, as a few maps: what each call must answer, and what there is afterwards.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gabion/v1/export.pb.h"
#include "gabion/v1/image.pb.h"

namespace gabion::service {

// Resources by name, as callers know them. The functions answer the reason of the error that the
// call must end with, or "" and have had their effect. A value; of one test.
class DomainModel {
 public:
  struct Image {
    uint64_t size = 0;
    std::string label;  // labels.k; empty: none
    uint64_t generation = 1;
    bool deleted = false;   // a tombstone
    bool retained = false;  // that is kept, whatever uses it
    std::string backing;    // the image that it stands on; empty: none
  };
  // Of the kind delay.
  struct Filter {
    int32_t delay_ns = 0;
    uint64_t generation = 1;
  };
  struct Export {
    std::string source;
    std::vector<std::string> stack;  // names of filters, each once: its id is the entry's
    std::string description;
    bool read_only = false;
    bool enabled = true;
    uint64_t generation = 1;
    std::set<uint64_t> clients;
    bool draining = false;
    bool soft = false;      // of one that is draining
    std::string operation;  // that drains it
  };

  std::map<std::string, Image> images;
  std::map<std::string, Export> exports;
  std::map<std::string, Filter> filters;

  bool IsAttached(const std::string& filter) const {
    return std::any_of(exports.begin(), exports.end(), [&](const auto& exported) {
      return std::count(exported.second.stack.begin(), exported.second.stack.end(), filter) > 0;
    });
  }
  bool IsUsed(const std::string& image) const {
    for (const auto& [name, exported] : exports) {
      if (exported.source == image) return true;
    }
    return false;
  }
  bool IsStoodOn(const std::string& image) const {
    for (const auto& [name, other] : images) {
      if (other.backing == image) return true;
    }
    return false;
  }
  bool IsWritable(const std::string& image) const {
    for (const auto& [name, exported] : exports) {
      if (exported.source == image && !exported.read_only) return true;
    }
    return false;
  }
  std::size_t draining() const {
    std::size_t count = 0;
    for (const auto& [name, exported] : exports) count += exported.draining ? 1 : 0;
    return count;
  }
  std::size_t clients() const {
    std::size_t count = 0;
    for (const auto& [name, exported] : exports) count += exported.clients.size();
    return count;
  }

  std::string CreateImage(const std::string& name, const Image& asked) {
    const auto found = images.find(name);
    if (found == images.end()) {
      images[name] = asked;
      return "";
    }
    const bool same = found->second.size == asked.size && found->second.label == asked.label &&
                      found->second.backing.empty();
    return same ? "RESOURCE_EXISTS" : "RESOURCE_EXISTS_DIFFERENT";
  }

  // It gets the source's size.
  std::string CloneImage(const std::string& name, const std::string& source,
                         const std::string& label) {
    const auto below = images.find(source);
    if (below == images.end()) return "RESOURCE_NOT_FOUND";
    const auto found = images.find(name);
    if (found != images.end()) {
      const bool same = found->second.backing == source && found->second.label == label;
      return same ? "RESOURCE_EXISTS" : "RESOURCE_EXISTS_DIFFERENT";
    }
    if (below->second.deleted) return "IMAGE_DELETED";
    if (IsWritable(source)) return "IMAGE_IN_USE";
    Image clone;
    clone.size = below->second.size;
    clone.label = label;
    clone.backing = source;
    images[name] = clone;
    return "";
  }

  // `size` 0: as it is.
  std::string UpdateImage(const std::string& name, const std::string& label, uint64_t size,
                          bool etag) {
    const auto found = images.find(name);
    if (found == images.end()) return "RESOURCE_NOT_FOUND";
    if (!etag) return "ETAG_MISMATCH";
    Image& image = found->second;
    if (size != 0 && size < image.size) return "SHRINK_NOT_ALLOWED";
    if (size > image.size && IsStoodOn(name)) return "IMAGE_HAS_DEPENDENTS";
    const Image before = image;
    image.label = label;
    if (size != 0) image.size = size;
    if (image.label != before.label || image.size != before.size) ++image.generation;
    return "";
  }

  std::string DeleteImage(const std::string& name, bool allow_missing, bool etag) {
    const auto found = images.find(name);
    if (found == images.end()) return allow_missing ? "" : "RESOURCE_NOT_FOUND";
    if (!etag) return "ETAG_MISMATCH";
    if (IsUsed(name)) return "IMAGE_IN_USE";
    if (IsStoodOn(name)) return "IMAGE_HAS_DEPENDENTS";
    images.erase(found);
    PurgeWhatIsDue();
    return "";
  }

  std::string BuryImage(const std::string& name, bool retained) {
    const auto found = images.find(name);
    if (found == images.end()) return "RESOURCE_NOT_FOUND";
    found->second.deleted = true;
    found->second.retained = retained;
    PurgeWhatIsDue();
    return "";
  }

  std::string UndeleteImage(const std::string& name) {
    const auto found = images.find(name);
    if (found == images.end()) return "RESOURCE_NOT_FOUND";
    if (!found->second.deleted) return "IMAGE_NOT_DELETED";
    found->second.deleted = false;
    return "";
  }

  std::string CreateExport(const std::string& name, const Export& asked) {
    const auto found = exports.find(name);
    if (found != exports.end()) {
      const Export& old = found->second;
      const bool same = old.source == asked.source && old.description == asked.description &&
                        old.read_only == asked.read_only && old.enabled == asked.enabled &&
                        old.stack == asked.stack;
      return same ? "RESOURCE_EXISTS" : "RESOURCE_EXISTS_DIFFERENT";
    }
    const auto image = images.find(asked.source);
    if (image == images.end()) return "RESOURCE_NOT_FOUND";
    if (image->second.deleted) return "IMAGE_DELETED";
    if (!asked.read_only && IsStoodOn(asked.source)) return "IMAGE_HAS_DEPENDENTS";
    for (const std::string& filter : asked.stack) {
      if (!filters.contains(filter)) return "RESOURCE_NOT_FOUND";
    }
    exports[name] = asked;
    return "";
  }

  std::string CreateFilter(const std::string& name, int32_t delay_ns) {
    const auto [filter, created] = filters.emplace(name, Filter{delay_ns});
    if (created) return "";
    return filter->second.delay_ns == delay_ns ? "RESOURCE_EXISTS" : "RESOURCE_EXISTS_DIFFERENT";
  }

  std::string UpdateFilter(const std::string& name, int32_t delay_ns, bool etag) {
    const auto found = filters.find(name);
    if (found == filters.end()) return "RESOURCE_NOT_FOUND";
    if (!etag) return "ETAG_MISMATCH";
    if (found->second.delay_ns != delay_ns) ++found->second.generation;
    found->second.delay_ns = delay_ns;
    return "";
  }

  std::string DeleteFilter(const std::string& name, bool allow_missing, bool etag) {
    const auto found = filters.find(name);
    if (found == filters.end()) return allow_missing ? "" : "RESOURCE_NOT_FOUND";
    if (!etag) return "ETAG_MISMATCH";
    if (IsAttached(name)) return "FILTER_IN_USE";
    filters.erase(found);
    return "";
  }

  // As the entry that is next to the clients.
  std::string AttachFilter(const std::string& name, const std::string& filter, bool etag) {
    const auto found = exports.find(name);
    if (found == exports.end()) return "RESOURCE_NOT_FOUND";
    if (!etag) return "ETAG_MISMATCH";
    Export& exported = found->second;
    if (exported.draining) return "OPERATION_IN_PROGRESS";
    const auto& stack = exported.stack;
    const bool taken = std::count(stack.begin(), stack.end(), filter) > 0;
    if (taken) return "FILTER_ALREADY_ATTACHED";
    if (!filters.contains(filter)) return "RESOURCE_NOT_FOUND";
    exported.stack.insert(exported.stack.begin(), filter);
    ++exported.generation;
    return "";
  }

  std::string DetachFilter(const std::string& name, const std::string& filter, bool allow_missing,
                           bool etag) {
    const auto found = exports.find(name);
    if (found == exports.end()) return "RESOURCE_NOT_FOUND";
    if (!etag) return "ETAG_MISMATCH";
    Export& exported = found->second;
    if (exported.draining) return "OPERATION_IN_PROGRESS";
    if (std::erase(exported.stack, filter) == 0) return allow_missing ? "" : "RESOURCE_NOT_FOUND";
    ++exported.generation;
    return "";
  }

  // `asked`: the source counts only if it is created; the mask names the rest.
  std::string UpdateExport(const std::string& name, const Export& asked, bool allow_missing,
                           bool etag) {
    const auto found = exports.find(name);
    if (found == exports.end()) {
      return allow_missing ? CreateExport(name, asked) : "RESOURCE_NOT_FOUND";
    }
    if (!etag) return "ETAG_MISMATCH";
    Export& exported = found->second;
    if (exported.draining) return "OPERATION_IN_PROGRESS";
    const bool opens = exported.read_only && !asked.read_only;
    if (opens && IsStoodOn(exported.source)) return "IMAGE_HAS_DEPENDENTS";
    const bool changes = exported.description != asked.description ||
                         exported.read_only != asked.read_only || exported.enabled != asked.enabled;
    exported.description = asked.description;
    exported.read_only = asked.read_only;
    exported.enabled = asked.enabled;
    if (changes) ++exported.generation;
    return "";
  }

  // Clients of MODE_SOFT have more time than the test has.
  std::string DeleteExport(const std::string& name, v1::DeleteExportRequest::Mode mode,
                           bool allow_missing, bool etag) {
    const bool hard = mode == v1::DeleteExportRequest::MODE_HARD;
    const auto found = exports.find(name);
    if (found == exports.end()) return allow_missing ? "" : "RESOURCE_NOT_FOUND";
    if (!etag) return "ETAG_MISMATCH";
    const bool soft = mode == v1::DeleteExportRequest::MODE_SOFT;
    if (found->second.draining && !hard) {
      const bool weaker = mode == v1::DeleteExportRequest::MODE_SAFE ||
                          (mode == v1::DeleteExportRequest::MODE_HIDE && found->second.soft);
      if (weaker) return "OPERATION_IN_PROGRESS";
      found->second.soft = soft;
      return "";
    }
    if (hard || found->second.clients.empty()) {
      EraseExport(name);
      return "";
    }
    if (mode == v1::DeleteExportRequest::MODE_SAFE) return "EXPORT_HAS_CONNECTIONS";
    found->second.draining = true;
    found->second.soft = soft;
    return "";
  }

  std::string CloseConnection(const std::string& name, uint64_t id) {
    const auto found = exports.find(name);
    if (found == exports.end() || !found->second.clients.contains(id)) return "RESOURCE_NOT_FOUND";
    Leave(name, id);
    return "";
  }

  // A client leaves.
  void Leave(const std::string& name, uint64_t id) {
    Export& exported = exports.at(name);
    exported.clients.erase(id);
    if (exported.draining && exported.clients.empty()) EraseExport(name);
  }

  // The daemon ends, and with it the clients; what waited for them is done by the next one.
  void Restart() {
    const std::map<std::string, Export> before = exports;
    for (const auto& [name, exported] : before) {
      exports.at(name).clients.clear();
      if (exported.draining) EraseExport(name);
    }
  }

 private:
  void EraseExport(const std::string& name) {
    exports.erase(name);
    PurgeWhatIsDue();
  }
  // From the top of each chain.
  void PurgeWhatIsDue() {
    const auto is_due = [this](const auto& image) {
      return image.second.deleted && !image.second.retained && !IsUsed(image.first) &&
             !IsStoodOn(image.first);
    };
    for (;;) {
      const auto due = std::find_if(images.begin(), images.end(), is_due);
      if (due == images.end()) return;
      images.erase(due);
    }
  }
};

}  // namespace gabion::service
