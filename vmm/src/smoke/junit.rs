// SPDX-License-Identifier: MIT OR Apache-2.0

//! A report as JUnit XML, as CI systems read it: a test case for each expectation.

use std::fmt::Write;

use super::report::Report;

/// The whole document.
pub fn document(report: &Report) -> String {
    let mut cases = String::new();
    for line in &report.expectations {
        let (name, time) = (escape(&line.name), line.seconds.unwrap_or(report.seconds));
        let _ = write!(
            cases,
            "  <testcase classname=\"busway.smoke\" name=\"{name}\" time=\"{time:.3}\""
        );
        if line.passed {
            let steps: Vec<_> = line
                .steps
                .iter()
                .map(|step| format!("{:.3} {}", step.seconds, step.step))
                .collect();
            let version = line.version.clone().unwrap_or_default();
            let text = escape(&format!("{version}\n{}", steps.join("\n")));
            let _ = writeln!(cases, ">\n    <system-out>{text}</system-out>\n  </testcase>");
        } else if report.error.is_some() {
            let _ = writeln!(cases, ">\n    <skipped/>\n  </testcase>");
        } else {
            let message = escape(line.explanation.as_deref().unwrap_or_default());
            let text = escape(&line.missing());
            let _ = writeln!(
                cases,
                ">\n    <failure message=\"{message}\">{text}</failure>\n  </testcase>"
            );
        }
    }
    let tests = report.expectations.len() + 1;
    let failures = report.expectations.iter().filter(|line| !line.passed).count();
    let (failures, skipped) = if report.error.is_some() { (0, failures) } else { (failures, 0) };
    let (ended, ended_badly) = how_it_ended(report);
    let (errors, seconds) = (usize::from(report.error.is_some()), report.seconds);
    let failures = failures + usize::from(ended_badly);
    let kernel = escape(&report.kernel);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuite name=\"busway smoke {kernel}\" tests=\"{tests}\" failures=\"{failures}\" \
         errors=\"{errors}\" skipped=\"{skipped}\" time=\"{seconds:.3}\">\n{ended}{cases}</testsuite>\n"
    )
}

/// The machine itself is a test case too: that it ran, and did not crash. True if it did crash,
/// or broke a rule that fails it.
fn how_it_ended(report: &Report) -> (String, bool) {
    let seconds = report.seconds;
    let crashed =
        !report.passed && report.error.is_none() && report.expectations.iter().all(|e| e.passed);
    let broken = report.strict.as_ref().filter(|strict| strict.failed);
    let content = match &report.error {
        Some(error) => format!("<error message=\"{}\"/>", escape(error)),
        None if let Some(strict) = broken => {
            format!("<failure message=\"{}\"/>", escape(&strict.to_string()))
        }
        None if crashed => format!("<failure message=\"{}\"/>", escape(&report.end)),
        None => format!("<system-out>{}</system-out>", escape(&report.end)),
    };
    let case = format!(
        "  <testcase classname=\"busway.smoke\" name=\"machine\" time=\"{seconds:.3}\">\n    \
         {content}\n  </testcase>\n"
    );
    (case, crashed || (broken.is_some() && report.error.is_none()))
}

/// Text for an attribute or an element. What XML 1.0 cannot carry at all is replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\t' => escaped.push(character),
            '\u{0}'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_holds_it_stays_text() {
        let text = "<a href=\"x\">'&'</a>\u{1b}[31m\u{0}ok\n";
        let wanted =
            "&lt;a href=&quot;x&quot;&gt;&apos;&amp;&apos;&lt;/a&gt;\u{fffd}[31m\u{fffd}ok\n";
        assert_eq!(escape(text), wanted);
    }
}
