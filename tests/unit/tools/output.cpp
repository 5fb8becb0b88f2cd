#include "output.hpp"

#include <doctest/doctest.h>

#include "arguments.hpp"
#include "command.hpp"
#include "groups.hpp"

using namespace cellrund;

TEST_CASE("columns are as wide as their widest cell, and no line ends in a space") {
  CHECK(cli::table({"A", "LONG"}, {{"wide cell", ""}, {"x", "y"}}) == "A          LONG\nwide cell\nx          y\n");
}

TEST_CASE("untrusted text cannot reach the terminal's controls") {
  CHECK(cli::printable("a\x1b[31m\n\x07\xc2\x9b") == "a\\x1b[31m\\x0a\\x07\\xc2\\x9b");
  CHECK(cli::printable("abcdef", 3) == "abc...");
}

TEST_CASE("colour follows NO_COLOR, FORCE_COLOR, TERM and the terminal") {
  struct Case {
    bool terminal;
    const char *no, *force, *term;
    bool expected;
  };
  for (const Case& c : {Case{true, "", "", "xterm", true}, {false, "", "", "xterm", false}, {true, "1", "", "xterm", false},
                        {true, "", "", "dumb", false}, {true, "", "", "", false}, {false, "", "1", "xterm", true},
                        {false, "", "0", "xterm", false}, {true, "1", "1", "xterm", false}}) {
    CHECK(cli::wants_colour(c.terminal, c.no, c.force, c.term) == c.expected);
  }
  CHECK(cli::paint("x", cli::Colour::kRed, true) == "\x1b[31mx\x1b[0m");
  CHECK(cli::paint("x", cli::Colour::kRed, false) == "x");
}

TEST_CASE("an error is one line and a hint, with code or reason") {
  api::Failure failure;
  failure.code = base::Errc::kInvalidArgument;
  failure.reason = model::Reason::kSchemaInvalid;
  failure.message = "must be a\nquantity";
  failure.field = "spec.x";
  failure.hint = "write 1";
  CHECK(cli::error_text({}, failure) == "cellrun: spec.x: must be a\\x0aquantity (SchemaInvalid)\nhint: write 1\n");
  failure.hint.clear();
  failure.reason = model::Reason::kNone;
  failure.field.clear();
  CHECK(cli::error_text({}, failure) == "cellrun: must be a\\x0aquantity (InvalidArgument)\n");
}

TEST_CASE("a list is an object with its name, or one object a line") {
  const base::json::Array items = {base::json::Object{{"a", 1}}, base::json::Object{{"a", 2}}};
  CHECK(cli::list_text(cli::Format::kJsonLines, "jobs", items) == "{\"a\":1}\n{\"a\":2}\n");
  CHECK(cli::list_text(cli::Format::kJson, "jobs", {}) == "{\n  \"jobs\": []\n}\n");
}

TEST_CASE("arguments: values, repetition, and the end of flags") {
  const std::vector<cli::Flag> flags = {{"key", 'k', "FILE", ""}, {"all", 'a', "", ""}, {"ns", 0, "N", "", true}};
  const auto parsed = cli::parse_arguments({"-k", "f", "x", "--ns=1", "--ns", "2", "--", "-a", "--what"}, flags);
  REQUIRE(parsed.ok());
  CHECK(parsed->value("key") == "f");
  CHECK(parsed->values("ns") == std::vector<std::string>{"1", "2"});
  CHECK(parsed->positional == std::vector<std::string>{"x", "-a", "--what"});
  CHECK_FALSE(parsed->has("all"));
  CHECK(cli::parse_arguments({"-"}, flags)->positional == std::vector<std::string>{"-"});
  CHECK(cli::parse_arguments({"--key=-x"}, flags)->value("key") == "-x");
  CHECK_FALSE(cli::parse_arguments({"-ka"}, flags).ok());
}

TEST_CASE("the exit code of a job: its own only when the teardown is CLEAN") {
  struct Case {
    model::Reason reason;
    std::optional<int> code, signal;
    std::optional<model::Verdict> verdict;
    int expected;
  };
  using model::Reason;
  using model::Verdict;
  for (const Case& c : {Case{Reason::kCompleted, 0, {}, Verdict::kClean, 0}, {Reason::kError, 7, {}, Verdict::kClean, 7},
                        {Reason::kCompleted, 0, {}, Verdict::kResidue, 123}, {Reason::kCompleted, 0, {}, {}, 123},
                        {Reason::kSignaled, {}, 9, Verdict::kClean, 137}, {Reason::kDeadlineExceeded, {}, {}, Verdict::kClean, 124},
                        {Reason::kCancelledByUser, {}, {}, Verdict::kClean, 122}, {Reason::kImageNotFound, {}, {}, {}, 125},
                        {Reason::kStartDeadlineExceeded, {}, {}, Verdict::kUnknown, 123}}) {
    api::Job job;
    job.outcome.reason = c.reason;
    job.outcome.exit_code = c.code;
    job.outcome.signal = c.signal;
    job.verdict = c.verdict;
    CHECK(cli::exit_code_of(job) == c.expected);
  }
}
