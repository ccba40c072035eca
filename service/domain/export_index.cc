#include "service/domain/export_index.h"

#include <utility>

namespace gabion::service {

std::optional<std::string> ExportIndex::Add(const std::string& export_name,
                                            const std::string& nbd_name, const std::string& image) {
  const std::lock_guard lock(mutex_);
  const auto [taken, added] = by_nbd_name_.emplace(nbd_name, export_name);
  if (!added) return taken->second;
  exports_[export_name] = {nbd_name, image};
  by_image_[image].insert(export_name);
  ++linked_;
  return std::nullopt;
}

std::size_t ExportIndex::size() const {
  const std::lock_guard lock(mutex_);
  return linked_;
}

void ExportIndex::Remove(const std::string& export_name) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return;
  by_nbd_name_.erase(found->second.nbd_name);
  UnlinkLocked(export_name, &found->second);
  exports_.erase(found);
}

void ExportIndex::Unlink(const std::string& export_name) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found != exports_.end()) UnlinkLocked(export_name, &found->second);
}

void ExportIndex::Link(const std::string& export_name, const std::string& image) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return;
  found->second.image = image;
  if (by_image_[image].insert(export_name).second) ++linked_;
}

void ExportIndex::UnlinkLocked(const std::string& export_name, Entry* entry) {
  const auto siblings = by_image_.find(entry->image);
  if (siblings == by_image_.end()) return;
  linked_ -= siblings->second.erase(export_name);
  if (siblings->second.empty()) by_image_.erase(siblings);
  entry->image.clear();
}

// The exports that serve the image, and those of `users` that are still exports of their images.
std::vector<std::string> ExportIndex::WithThoseOf(const std::string& image,
                                                  std::set<std::string> users) const {
  const std::lock_guard lock(mutex_);
  std::erase_if(users, [&](const std::string& name) {
    const auto found = exports_.find(name);
    return found == exports_.end() || found->second.image.empty();
  });
  const auto found = by_image_.find(image);
  if (found != by_image_.end()) users.insert(found->second.begin(), found->second.end());
  return {users.begin(), users.end()};
}

std::vector<std::string> ExportIndex::ExportsOf(const std::string& image) const {
  return WithThoseOf(image, attachments_.UsersOf(image));
}

std::vector<std::string> ExportIndex::ToldExportsOf(const std::string& image) const {
  return WithThoseOf(image, attachments_.ToldUsersOf(image));
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
