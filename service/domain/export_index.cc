#include "service/domain/export_index.h"

namespace gabion::service {

std::optional<std::string> ExportIndex::Add(const std::string& export_name,
                                            const std::string& nbd_name, const std::string& image) {
  const std::lock_guard lock(mutex_);
  const auto [taken, added] = by_nbd_name_.emplace(nbd_name, export_name);
  if (!added) return taken->second;
  exports_[export_name] = {nbd_name, image};
  by_image_[image].insert(export_name);
  return std::nullopt;
}

void ExportIndex::Remove(const std::string& export_name) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return;
  by_nbd_name_.erase(found->second.nbd_name);
  const auto siblings = by_image_.find(found->second.image);
  siblings->second.erase(export_name);
  if (siblings->second.empty()) by_image_.erase(siblings);
  exports_.erase(found);
}

std::vector<std::string> ExportIndex::ExportsOf(const std::string& image) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_image_.find(image);
  if (found == by_image_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

void ExportIndex::SetLeaving(const std::string& export_name, bool leaving) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found != exports_.end()) found->second.leaving = leaving;
}

std::vector<std::string> ExportIndex::DependentsOf(const std::string& image) const {
  std::vector<std::string> names = ExportsOf(image);
  const std::lock_guard lock(mutex_);
  std::erase_if(names, [this](const std::string& name) {
    const auto found = exports_.find(name);
    return found == exports_.end() || found->second.leaving;
  });
  return names;
}

std::optional<std::string> ExportIndex::OwnerOf(const std::string& nbd_name) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_nbd_name_.find(nbd_name);
  if (found == by_nbd_name_.end()) return std::nullopt;
  return found->second;
}

std::vector<std::string> ExportIndex::All() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, entry] : exports_) names.push_back(name);
  return names;
}

}  // namespace gabion::service
