#include "service/domain/filter_attachments.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "service/names.h"

namespace gabion::service {

void FilterAttachments::Attach(const std::string& export_name, Names attached) {
  Entry& entry = exports_[export_name];
  for (const std::string& filter : entry.attached) {
    const auto found = by_filter_.find(filter);
    found->second.erase(export_name);
    if (found->second.empty()) by_filter_.erase(found);
  }
  for (const std::string& filter : attached) by_filter_[filter].insert(export_name);
  entry.attached = std::move(attached);
  if (entry.attached.empty() && entry.changed.empty()) exports_.erase(export_name);
}

void FilterAttachments::Tell(const std::string& export_name,
                             const std::vector<std::string>& attached) {
  const std::lock_guard lock(mutex_);
  Entry& entry = exports_[export_name];
  Names told(attached.begin(), attached.end());
  std::set_symmetric_difference(told.begin(), told.end(), entry.told.begin(), entry.told.end(),
                                std::inserter(entry.changed, entry.changed.end()));
  entry.told = std::move(told);
  Names both = entry.attached;
  both.insert(attached.begin(), attached.end());
  Attach(export_name, std::move(both));
}

void FilterAttachments::Settle(const std::string& export_name) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return;
  found->second.changed.clear();
  Attach(export_name, Names(found->second.told));
}

void FilterAttachments::Remove(const std::string& export_name) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return;
  found->second.told.clear();
  found->second.changed.clear();
  Attach(export_name, {});
}

std::vector<std::string> FilterAttachments::Changed(const std::string& export_name) const {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return {};
  return {found->second.changed.begin(), found->second.changed.end()};
}

FilterAttachments::Names FilterAttachments::HoldersOf(const std::string& name, bool told) const {
  const auto found = by_filter_.find(name);
  if (found == by_filter_.end()) return {};
  if (!told) return found->second;
  Names holders;
  for (const std::string& holder : found->second) {
    if (exports_.at(holder).told.contains(name)) holders.insert(holder);
  }
  return holders;
}

FilterAttachments::Names FilterAttachments::UsersOf(const std::string& image, bool told) const {
  const std::lock_guard lock(mutex_);
  Names users;
  for (const std::string& holder : HoldersOf(image, told)) {
    if (CollectionOfName(holder) == kFilters) {
      users.merge(HoldersOf(holder, told));
    } else {
      users.insert(holder);
    }
  }
  return users;
}

std::vector<std::string> FilterAttachments::ExportsOf(const std::string& filter) const {
  const std::lock_guard lock(mutex_);
  const Names holders = HoldersOf(filter, false);
  return {holders.begin(), holders.end()};
}

std::vector<std::string> FilterAttachments::ToldOf(const std::string& filter) const {
  const std::lock_guard lock(mutex_);
  const Names holders = HoldersOf(filter, true);
  return {holders.begin(), holders.end()};
}

std::set<std::string> FilterAttachments::UsersOf(const std::string& image) const {
  return UsersOf(image, false);
}

std::set<std::string> FilterAttachments::ToldUsersOf(const std::string& image) const {
  return UsersOf(image, true);
}

}  // namespace gabion::service
