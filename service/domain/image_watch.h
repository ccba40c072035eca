// Noticing what becomes of images' files without anybody's call.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "engine/base/log.h"
#include "service/domain/image_manager.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

struct ImageWatchOptions {
  // From the end of a round to the next. A round that takes long is followed by a longer rest.
  std::chrono::milliseconds every{10'000};
};

// Looks at the files of all images, round after round, a few hundred at a time, on a thread of its
// own, and touches each image whose file cannot be used any more, for another reason than before,
// or can be used again: that is what tells it to watches, and when its conditions have changed.
// Owned by the domain; any thread.
class ImageWatch {
 public:
  // All of them outlive this.
  ImageWatch(const ImageManager& images, MetadataStore& store, Logger& logger,
             ImageWatchOptions options);
  // As Stop().
  ~ImageWatch();
  ImageWatch(const ImageWatch&) = delete;
  ImageWatch& operator=(const ImageWatch&) = delete;

  // The first round is one rest from now. Call once.
  void Start();
  // One round, now; blocks.
  absl::Status Run();
  void Stop();

 private:
  void Loop();

  const ImageManager& images_;
  MetadataStore& store_;
  Logger& logger_;
  const ImageWatchOptions options_;

  std::mutex round_;                        // one at a time
  std::map<std::string, std::string> bad_;  // image names, and why, as of the last round

  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace gabion::service
