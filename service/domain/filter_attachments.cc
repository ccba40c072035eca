#include "service/domain/filter_attachments.h"

#include <algorithm>
#include <iterator>
#include <utility>

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
                             const std::vector<std::string>& filters) {
  const std::lock_guard lock(mutex_);
  Entry& entry = exports_[export_name];
  Names told(filters.begin(), filters.end());
  std::set_symmetric_difference(told.begin(), told.end(), entry.told.begin(), entry.told.end(),
                                std::inserter(entry.changed, entry.changed.end()));
  entry.told = std::move(told);
  Names attached = entry.attached;
  attached.insert(filters.begin(), filters.end());
  Attach(export_name, std::move(attached));
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

std::vector<std::string> FilterAttachments::ExportsOf(const std::string& filter) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_filter_.find(filter);
  if (found == by_filter_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

std::vector<std::string> FilterAttachments::ToldOf(const std::string& filter) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> told;
  const auto found = by_filter_.find(filter);
  if (found == by_filter_.end()) return told;
  for (const std::string& name : found->second) {
    if (exports_.at(name).told.contains(filter)) told.push_back(name);
  }
  return told;
}

}  // namespace gabion::service
