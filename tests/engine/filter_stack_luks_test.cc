// Encrypted disks in the filters of an export.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/reason.h"
#include "engine/filter_stack.h"
#include "tests/engine/luks_fixture.h"

namespace gabion::engine {
namespace {

constexpr char kQuick1[] = "--type luks1 --pbkdf-force-iterations 1000";
constexpr char kQuick2[] = "--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000";

FilterEntry Luks(const std::string& id, const std::string& key_file) {
  return {.id = id, .options = filters::LuksOptions{.key_file = key_file}};
}

class FilterStackLuksTest : public LuksFilesTest {
 protected:
  void SetUp() override {
    LuksFilesTest::SetUp();
    if (!Has("cryptsetup")) GTEST_SKIP() << "cryptsetup is not here";
    absl::StatusOr<io::Directory> opened = io::Directory::Open(directory_.path());
    ASSERT_TRUE(opened.ok());
    secrets_ = std::make_unique<io::Directory>(*std::move(opened));
    keys_ = std::make_unique<KeySurroundings>(KeySurroundings{*secrets_, workers_, key_workers_});
  }
  void TearDown() override {
    stacks_.clear();
    for (const auto& disk : disks_) EXPECT_TRUE(test::Finish(reactor_, disk->Close()).ok());
  }

  block::Node& Disk(const std::string& name, uint64_t alignment = 1) {
    io::UniqueFd fd(open(Path(name).c_str(), O_RDWR | O_CLOEXEC));
    absl::StatusOr<std::unique_ptr<io::File>> file = io::NewPoolFile(std::move(fd), workers_);
    EXPECT_TRUE(file.ok()) << file.status();
    disks_.push_back(raw::NewRawNode(
        *std::move(file), {.request_alignment = ByteCount{alignment}, .name = "images/a"}));
    return *disks_.back();
  }
  absl::StatusOr<FilterStack*> Build(block::Node& disk, std::vector<FilterEntry> entries) {
    StackSurroundings surroundings{
        reactor_.ready(), reactor_.clock(), NullLogger(), states_, "exports/e", 1, keys_.get()};
    absl::StatusOr<std::unique_ptr<FilterStack>> stack = test::Finish(
        reactor_, FilterStack::Build(std::move(surroundings), disk, std::move(entries), nullptr));
    if (!stack.ok()) return stack.status();
    stacks_.push_back(*std::move(stack));
    return stacks_.back().get();
  }
  void Write(FilterStack& stack, uint64_t offset, const std::string& text) {
    const Bytes bytes = std::as_bytes(std::span<const char>(text));
    EXPECT_TRUE(
        test::Finish(reactor_, stack.top().Write(Range(offset, text.size()), bytes, {})).ok());
  }
  std::string Read(FilterStack& stack, uint64_t offset, std::size_t size) {
    std::string text(size, '\0');
    const MutableBytes bytes = std::as_writable_bytes(std::span<char>(text));
    EXPECT_TRUE(test::Finish(reactor_, stack.top().Read(Range(offset, size), bytes)).ok());
    return text;
  }
  // The reason for which the entry is refused, and its field or kind.
  std::string Refusal(const std::string& disk, std::vector<FilterEntry> entries) {
    const absl::Status status = Build(Disk(disk), std::move(entries)).status();
    const std::optional<Reason> reason = ReasonOf(status);
    if (!reason.has_value()) return status.ToString();
    EXPECT_EQ(std::string(status.message()).find(directory_.path()), std::string::npos) << status;
    return reason->reason + " " + reason->metadata.back().second;
  }

  std::unique_ptr<io::Directory> secrets_;
  std::unique_ptr<KeySurroundings> keys_;
  SharedFilterStates states_;
  std::vector<std::unique_ptr<block::Node>> disks_;
  std::vector<std::unique_ptr<FilterStack>> stacks_;
};

TEST_F(FilterStackLuksTest, ClientsSeeWhatIsInside) {
  for (const uint64_t alignment : {1, 512, 4096}) {
    for (const char* const type : {kQuick1, kQuick2}) {
      ASSERT_NO_FATAL_FAILURE(Format("volume", 20 * kMiB, type));
      const absl::StatusOr<FilterStack*> stack =
          Build(Disk("volume", alignment), {Luks("secret", "key")});
      ASSERT_TRUE(stack.ok()) << stack.status();
      const block::Limits& limits = (*stack)->top().limits();
      EXPECT_EQ(limits.alignment, ByteCount{1});
      EXPECT_GE(limits.emulated_alignment, ByteCount{512});
      const std::string text = RandomText(random_.Between(1, 300'000));
      const uint64_t offset = random_.Below(kMiB);
      Write(**stack, offset, text);
      EXPECT_TRUE(test::Finish(reactor_, (*stack)->top().Flush()).ok());
      EXPECT_TRUE(Read(**stack, offset, text.size()) == text);
      Volume volume(*this, "volume");
      ASSERT_TRUE(volume.valid());
      EXPECT_EQ(volume.node().limits().size, limits.size);
      EXPECT_TRUE(volume.Read(offset, text.size()) == text);
    }
  }
}

TEST_F(FilterStackLuksTest, AVolumeMayLieInAPartOfADisk) {
  ASSERT_NO_FATAL_FAILURE(Format("volume", 20 * kMiB, kQuick2));
  WriteFile("disk", std::string(777, 'x') + ReadFile("volume") + std::string(99, 'x'));
  const FilterEntry part{.id = "part",
                         .options = filters::SliceOptions{.range = Range(777, 20 * kMiB)}};
  const FilterEntry inside{.id = "inside",
                           .options = filters::SliceOptions{.range = Range(100, 200)}};
  const auto stack = Build(Disk("disk", 512), {inside, Luks("secret", "key"), part});
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_EQ((*stack)->top().limits().size, ByteCount{200});
  Write(**stack, 10, "inside");
  const auto whole = Build(Disk("disk"), {Luks("secret", "key"), part});
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(Read(**whole, 110, 6), "inside");
}

// Two volumes in one file, and the same place in it seen through the one and the other.
TEST_F(FilterStackLuksTest, OtherKeysAndOtherPlacesShowOtherBytes) {
  ASSERT_NO_FATAL_FAILURE(Format("first", 20 * kMiB, kQuick2));
  ASSERT_NO_FATAL_FAILURE(Format("second", 20 * kMiB, kQuick2));
  WriteFile("both", ReadFile("first") + ReadFile("second"));
  block::Node& disk = Disk("both");
  const FilterEntry part{.id = "part",
                         .options = filters::SliceOptions{.range = Range(20 * kMiB, 0)}};
  const auto inside = Build(disk, {Luks("a", "key"), part});
  const auto outside = Build(disk, {part, Luks("a", "key")});
  ASSERT_TRUE(inside.ok()) << inside.status();
  EXPECT_TRUE(!outside.ok() || !(*outside)->ShowsSameBytes(**inside));
  const FilterEntry start{.id = "part", .options = filters::SliceOptions{.range = Range(0, kMiB)}};
  const auto before = Build(disk, {start, Luks("a", "key")});
  ASSERT_TRUE(before.ok()) << before.status();
  ASSERT_NO_FATAL_FAILURE(Format("first", 20 * kMiB, kQuick2));
  WriteFile("other", ReadFile("first") + ReadFile("second"));
  const auto rekeyed = Build(Disk("other"), {start, Luks("a", "key")});
  ASSERT_TRUE(rekeyed.ok()) << rekeyed.status();
  EXPECT_FALSE((*rekeyed)->ShowsSameBytes(**before));
}

TEST_F(FilterStackLuksTest, RefusalsNameTheField) {
  ASSERT_NO_FATAL_FAILURE(Format("volume", 20 * kMiB, kQuick2));
  WriteFile("wrong", "not the passphrase");
  WriteFile("plain", std::string(kMiB, 'x'));
  constexpr char kKeyFile[] = "FILTER_PARAMETERS_INVALID luks.key_file";
  EXPECT_EQ(Refusal("volume", {Luks("a", "missing")}), kKeyFile);
  EXPECT_EQ(Refusal("volume", {Luks("a", "wrong")}), kKeyFile);
  EXPECT_EQ(Refusal("volume", {Luks("a", "../key")}), kKeyFile);
  EXPECT_EQ(Refusal("plain", {Luks("a", "key")}), "FILTER_PARAMETERS_INVALID luks");
  EXPECT_EQ(Refusal("volume", {Luks("b", "key"), Luks("a", "key")}),
            "FILTER_PARAMETERS_INVALID luks");  // there is no volume in the volume
  keys_ = nullptr;
  EXPECT_EQ(Refusal("volume", {Luks("a", "key")}), "FILTER_KIND_DISABLED luks");
}

TEST_F(FilterStackLuksTest, ABypassedEntryOpensNothingAndShowsOtherBytes) {
  ASSERT_NO_FATAL_FAILURE(Format("volume", 20 * kMiB, kQuick2));
  WriteFile("other", kPassphrase);
  block::Node& disk = Disk("volume");
  FilterEntry bypassed = Luks("a", "missing");
  bypassed.bypassed = true;
  const auto plain = Build(disk, {bypassed});
  const auto opened = Build(disk, {Luks("a", "key")});
  const auto again = Build(disk, {Luks("b", "other")});
  ASSERT_TRUE(plain.ok() && opened.ok() && again.ok());
  EXPECT_EQ(Read(**plain, 0, 4), "LUKS");
  EXPECT_FALSE((*plain)->ShowsSameBytes(**opened));
  EXPECT_TRUE((*again)->ShowsSameBytes(**opened));
}

}  // namespace
}  // namespace gabion::engine
