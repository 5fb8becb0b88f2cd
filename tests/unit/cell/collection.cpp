#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "cell/collect/answer.hpp"
#include "cell/collect/collection.hpp"
#include "crypto/digest.hpp"
#include "tests/support/outputs_cases.hpp"

using namespace cellrund;
using namespace cellrund::cell::collect;
using namespace outputs_test;

namespace {

struct Taken {
  model::OutputFacts facts;
  std::string data;
};

// As the collector's loop does, with the archive in pieces of `step` bytes.
Taken collect_in(const Request& request, base::BytesView archive, std::size_t step) {
  const base::UniqueFd file(::memfd_create("data", MFD_CLOEXEC));
  Collection collection(request, file.get());
  wire::ArchiveReader reader(collection);
  std::string why = archive.empty() ? "the cell handed nothing over" : "the archive ends before its end";
  for (std::size_t at = 0; at < archive.size(); at += step) {
    if (const auto fed = reader.feed(archive.subspan(at, std::min(step, archive.size() - at))); !fed.ok()) {
      why = fed.error().message();
      break;
    }
    if (reader.ended()) {
      why.clear();
    }
  }
  Taken out;
  out.facts = collection.finish(why);
  struct stat st {};
  REQUIRE(::fstat(file.get(), &st) == 0);
  out.data.resize(static_cast<std::size_t>(st.st_size));
  REQUIRE(::pread(file.get(), out.data.data(), out.data.size(), 0) == st.st_size);
  return out;
}

}  // namespace

TEST_CASE("each hostile archive gives exactly the files and refusals that it should, however it arrives") {
  REQUIRE(cases().size() >= 60);
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    for (const std::size_t step : {std::size_t{1}, std::size_t{7}, std::size_t{1} << 20U}) {
      const Taken taken = collect_in(kBudget, c.archive.bytes(), step);
      std::vector<std::pair<std::string, std::string>> files;
      std::size_t at = 0;
      for (const model::OutputFile& file : taken.facts.files) {
        const std::string content = taken.data.substr(at, file.size);
        at += file.size;
        CHECK(file.sha256 == crypto::digest_text(base::as_bytes(content)));
        files.emplace_back(file.path, content);
      }
      CHECK(at == taken.data.size());
      CHECK(files == c.taken);
      std::vector<std::pair<std::string, std::string>> refused;
      for (const model::RefusedOutput& output : taken.facts.refused) {
        refused.emplace_back(output.path, output.why);
      }
      CHECK(refused == c.refused);
      CHECK(taken.facts.refused_count == (c.refused_count != 0 ? c.refused_count : c.refused.size()));
      CHECK(taken.facts.incomplete_because.empty() == c.incomplete.empty());
      CHECK(taken.facts.incomplete_because.starts_with(c.incomplete));
      // What the collector says of it, the daemon takes.
      const auto answer = parse_answer(write_answer(taken.facts), kBudget);
      REQUIRE_MESSAGE(answer.ok(), (answer.ok() ? "" : answer.error().message()));
      CHECK(write_answer(*answer) == write_answer(taken.facts));
    }
  }
}

TEST_CASE("all names together have a budget") {
  const Request request{1000, wire::kMaxOutputFiles};
  Archive archive;
  const std::string folder = repeat(std::string(200, 'p') + "/", 5);
  for (int i = 0; i < 600; ++i) {
    archive.file(folder + std::to_string(i), "");
  }
  const Taken taken = collect_in(request, archive.end().bytes(), 65536);
  std::size_t bytes = 0;
  for (const model::OutputFile& file : taken.facts.files) {
    bytes += file.path.size();
  }
  CHECK(bytes <= wire::kMaxOutputPaths);
  CHECK(bytes > wire::kMaxOutputPaths - 2000);
  CHECK(taken.facts.files.size() + taken.facts.refused_count == 600);
  CHECK(taken.facts.refused.front().why == "over the budget of names");
}

TEST_CASE("an answer that breaks a rule of the collector is refused") {
  const std::string digest(64, 'a');
  const auto with = [&](const std::string& files, const std::string& refused = "[]", const std::string& count = "0", const std::string& why = "") {
    return R"({"files":)" + files + R"(,"refused":)" + refused + R"(,"refusedCount":)" + count + R"(,"incomplete":")" + why + R"("})";
  };
  const auto file = [&](const std::string& path, const std::string& size) {
    return R"({"path":")" + path + R"(","size":)" + size + R"(,"sha256":")" + digest + R"("})";
  };
  REQUIRE(parse_answer(with("[" + file("a", "1") + "]"), kBudget).ok());
  for (const std::string& text : {
           std::string(), std::string("{}"), std::string("[]"), with("{}"), with("[1]"),
           with("[" + file("../a", "1") + "]"), with("[" + file("/a", "1") + "]"), with("[" + file("a\\u001b", "1") + "]"),
           with("[" + file("a", "-1") + "]"), with("[" + file("a", "1001") + "]"),
           with("[" + file("a", "600") + "," + file("b", "600") + "]"), with("[" + file("a", "1") + "," + file("a", "1") + "]"),
           with(R"([{"path":"a","size":1,"sha256":"zz"}])"), with(R"([{"path":"a","size":1}])"),
           with("[]", R"([{"path":"a","why":"x"}])", "0"), with("[]", R"([{"path":"\u001b","why":"x"}])", "1"),
           with("[]", R"([{"path":"a","why":"\n"}])", "1"), with("[]", R"([{"path":")" + std::string(300, 'p') + R"(","why":"x"}])", "1"),
           with("[]", "[]", "-1"), with("[]", "[]", "0", "\\n"), with("[]") + "x",
       }) {
    CAPTURE(text);
    CHECK_FALSE(parse_answer(text, kBudget).ok());
  }
}
