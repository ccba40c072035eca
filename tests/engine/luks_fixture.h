// LUKS volumes in files, made by the tools that everybody uses, and opened by Gabion.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/block/aligned_node.h"
#include "engine/filters/luks.h"
#include "engine/formats/raw/raw_node.h"
#include "engine/io/pool_file.h"
#include "engine/luks_key.h"
#include "engine/runtime/worker_pool.h"
#include "tests/support/random_source.h"
#include "tests/support_io/finish.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::engine {

inline constexpr std::string_view kPassphrase = "open, sesame";

inline Secret SecretOf(std::string_view text) {
  Secret secret(text.size());
  const Bytes bytes = std::as_bytes(std::span<const char>(text));
  std::copy(bytes.begin(), bytes.end(), secret.bytes().begin());
  return secret;
}

class LuksFilesTest : public ::testing::Test {
 protected:
  void SetUp() override { WriteFile("key", kPassphrase); }

  static bool Has(const char* tool) {
    return std::system(
               absl::StrCat("PATH=$PATH:/usr/sbin ", tool, " --version >/dev/null 2>&1").c_str()) ==
           0;
  }
  // Runs `command` in the directory; it must succeed, and what it says is shown if it does not.
  void Run(const std::string& command) {
    const std::string all =
        absl::StrCat("cd '", directory_.path(), "' && export PATH=$PATH:/usr/sbin", " && { ",
                     command, "; } >log 2>&1 </dev/null");
    ASSERT_EQ(std::system(all.c_str()), 0) << command << "\n" << ReadFile("log");
  }
  std::string Path(std::string_view name) const { return directory_.File(name); }
  std::string ReadFile(std::string_view name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void WriteFile(std::string_view name, std::string_view content) const {
    std::ofstream file(Path(name), std::ios::binary | std::ios::trunc);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
  }
  std::string RandomText(std::size_t size) {
    std::string text(size, '\0');
    random_.FillNonZero(std::as_writable_bytes(std::span<char>(text)));
    return text;
  }

  // Makes `name`, of `size` bytes, a volume with cryptsetup.
  void Format(const std::string& name, uint64_t size, const std::string& arguments) {
    WriteFile(name, "");
    std::filesystem::resize_file(Path(name), size);
    Run(absl::StrCat("cryptsetup luksFormat -q --key-file key ", arguments, " ", name));
  }

  // A disk over the file, as an image has it.
  std::unique_ptr<block::Node> OpenDisk(std::string_view name) {
    io::UniqueFd fd(open(Path(name).c_str(), O_RDWR | O_CLOEXEC));
    absl::StatusOr<std::unique_ptr<io::File>> file = io::NewPoolFile(std::move(fd), workers_);
    EXPECT_TRUE(file.ok()) << file.status();
    return raw::NewRawNode(*std::move(file), {});
  }
  absl::StatusOr<filters::LuksVolume> Unlock(block::Node& disk, std::string_view passphrase,
                                             LuksBounds bounds = {}) {
    return test::Finish(reactor_,
                        OpenLuks(disk, SecretOf(passphrase), key_workers_, bounds, closing_));
  }
  absl::StatusOr<filters::LuksVolume> Unlock(std::string_view name,
                                             std::string_view passphrase = kPassphrase,
                                             LuksBounds bounds = {}) {
    const std::unique_ptr<block::Node> disk = OpenDisk(name);
    absl::StatusOr<filters::LuksVolume> volume = Unlock(*disk, passphrase, bounds);
    EXPECT_TRUE(test::Finish(reactor_, disk->Close()).ok());
    return volume;
  }

  // An opened volume: byte-addressable.
  class Volume {
   public:
    Volume(LuksFilesTest& test, std::string_view name)
        : reactor_(test.reactor_), disk_(test.OpenDisk(name)) {
      absl::StatusOr<filters::LuksVolume> volume = test.Unlock(*disk_, kPassphrase);
      EXPECT_TRUE(volume.ok()) << volume.status();
      if (!volume.ok()) return;
      auto filter =
          filters::NewLuks(*disk_, {reactor_.ready(), reactor_.clock(), NullLogger(), "test"},
                           "secret", *std::move(volume), false, test.workers_);
      EXPECT_TRUE(filter.ok()) << filter.status();
      filter_ = *std::move(filter);
      node_ = std::make_unique<block::AlignedNode>(*filter_, reactor_.ready());
    }
    ~Volume() { EXPECT_TRUE(test::Finish(reactor_, disk_->Close()).ok()); }

    bool valid() const { return node_ != nullptr; }
    block::Node& node() { return *node_; }
    std::string Read(uint64_t offset, std::size_t size) {
      std::string text(size, '\0');
      const MutableBytes bytes = std::as_writable_bytes(std::span<char>(text));
      const absl::Status status = test::Finish(reactor_, node_->Read(Range(offset, size), bytes));
      EXPECT_TRUE(status.ok()) << status;
      return text;
    }
    void Write(uint64_t offset, std::string_view text) {
      const Bytes bytes = std::as_bytes(std::span<const char>(text));
      const absl::Status status =
          test::Finish(reactor_, node_->Write(Range(offset, text.size()), bytes, {}));
      EXPECT_TRUE(status.ok()) << status;
    }
    void Zero(ByteRange range) { EXPECT_TRUE(test::Finish(reactor_, node_->Zero(range, {})).ok()); }

   private:
    runtime::Reactor& reactor_;
    std::unique_ptr<block::Node> disk_;
    std::unique_ptr<filters::Filter> filter_;
    std::unique_ptr<block::AlignedNode> node_;
  };

  // Changes a volume at random, and `content` with it.
  void Scribble(Volume& volume, std::string& content) {
    for (int i = 0; i < 12; ++i) {
      ByteRange range = random_.RangeWithin(content.size());
      range.length.value = std::min<uint64_t>(range.length.value, random_.Between(1, 700'000));
      if (random_.OneIn(4)) {
        volume.Zero(range);
        content.replace(range.offset.value, range.length.value, range.length.value, '\0');
      } else {
        const std::string text = RandomText(range.length.value);
        volume.Write(range.offset.value, text);
        content.replace(range.offset.value, range.length.value, text);
      }
    }
  }

  test::RandomSource random_;
  test::TempDir directory_;
  runtime::Reactor reactor_{{}};
  runtime::WorkerPool pool_{"worker", 2};
  runtime::WorkerPool key_pool_{"key", 1};
  runtime::Workers workers_{pool_, reactor_};
  runtime::Workers key_workers_{key_pool_, reactor_};
  std::atomic<bool> closing_ = false;
};

}  // namespace gabion::engine
