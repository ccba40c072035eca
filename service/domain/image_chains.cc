#include "service/domain/image_chains.h"

namespace gabion::service {

void ImageChains::Add(const std::string& image, const std::string& backing) {
  const std::lock_guard lock(mutex_);
  backing_[image] = backing;
  on_[backing].insert(image);
  hidden_.erase(image);
}

void ImageChains::Hide(const std::string& image) {
  const std::lock_guard lock(mutex_);
  if (backing_.contains(image)) hidden_.insert(image);
}

void ImageChains::Remove(const std::string& image) {
  const std::lock_guard lock(mutex_);
  const auto found = backing_.find(image);
  if (found == backing_.end()) return;
  const auto on = on_.find(found->second);
  on->second.erase(image);
  if (on->second.empty()) on_.erase(on);
  backing_.erase(found);
  hidden_.erase(image);
}

std::vector<std::string> ImageChains::ImagesOn(const std::string& backing) const {
  const std::lock_guard lock(mutex_);
  const auto found = on_.find(backing);
  if (found == on_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

std::vector<std::string> ImageChains::ToldOn(const std::string& backing, std::size_t most) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> told;
  const auto found = on_.find(backing);
  if (found == on_.end()) return told;
  for (const std::string& image : found->second) {
    if (told.size() == most) break;
    if (!hidden_.contains(image)) told.push_back(image);
  }
  return told;
}

bool ImageChains::HasImagesOn(const std::string& backing) const {
  const std::lock_guard lock(mutex_);
  return on_.contains(backing);
}

std::vector<std::string> ImageChains::ChainOf(const std::string& image) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> chain = {image};
  for (auto found = backing_.find(image); found != backing_.end();
       found = backing_.find(found->second)) {
    chain.push_back(found->second);
  }
  return chain;
}

}  // namespace gabion::service
