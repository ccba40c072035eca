#include "service/domain/image_watch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

constexpr std::size_t kPage = 256;  // images that are looked at at once
constexpr int kRest = 20;           // a round takes at most one part in this of the time

// Why the file cannot be used; empty if it can, or if there need not be one.
std::string Obstacle(const v1::Image& image) {
  if (image.state() != v1::Image::STATE_UNAVAILABLE) return {};
  return absl::StrCat(image.uid(), " ", InfoOf(FromRpcStatus(image.state_error())).reason());
}

}  // namespace

ImageWatch::ImageWatch(const ImageManager& images, MetadataStore& store, Logger& logger,
                       ImageWatchOptions options)
    : images_(images), store_(store), logger_(logger), options_(options) {}

ImageWatch::~ImageWatch() { Stop(); }

void ImageWatch::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void ImageWatch::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_one();
  if (thread_.joinable()) thread_.join();
}

absl::Status ImageWatch::Run() {
  const std::lock_guard lock(round_);
  std::map<std::string, std::string> bad;
  std::string after;
  for (bool more = true; more;) {
    ASSIGN_OR_RETURN(const Page page, store_.List(kImages, after, kPage));
    std::vector<std::string> names;
    for (const Row& row : page.rows) names.push_back(row.name);
    std::vector<Mutation> touches;
    const std::vector<absl::StatusOr<v1::Image>> images = images_.GetMany(names);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!images[i].ok()) continue;  // gone meanwhile
      const std::string obstacle = Obstacle(*images[i]);
      const auto before = bad_.find(names[i]);
      if (obstacle != (before == bad_.end() ? std::string() : before->second)) {
        touches.push_back(Touch(kImages, names[i]));
      }
      if (!obstacle.empty()) bad.emplace(names[i], obstacle);
    }
    if (!touches.empty()) RETURN_IF_ERROR(store_.Commit(touches).status());
    more = page.more;
    if (more) after = page.rows.back().name;
  }
  bad_ = std::move(bad);
  return absl::OkStatus();
}

void ImageWatch::Loop() {
  using Clock = std::chrono::steady_clock;
  std::unique_lock lock(mutex_);
  Clock::duration rest = options_.every;
  while (!stop_.wait_for(lock, rest, [this] { return stopping_; })) {
    lock.unlock();
    const Clock::time_point begin = Clock::now();
    const absl::Status status = Run();
    if (!status.ok()) {
      logger_.Log(LogLevel::kWarning, "images",
                  absl::StrCat("Images' files could not be looked at: ", status.ToString()));
    }
    rest = std::max<Clock::duration>(options_.every, (Clock::now() - begin) * kRest);
    lock.lock();
  }
}

}  // namespace gabion::service
