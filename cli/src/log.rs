//! The log on stderr: one event a line, whatever text of others is in it.

use std::io::{self, Write};

use zklora_models::text::{json_in_ascii, shown};

use crate::args::LogFormat;

/// What happens to sessions is logged on stderr; `ZKLORA_LOG` sets how much.
pub fn to_stderr(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ZKLORA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,zklora_runtime=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Escaped(io::stderr(), format))
        .with_target(false)
        // Colours are codes of the terminal, which are escaped like any other.
        .with_ansi(false);
    // Only a second subscriber in one process would be refused.
    let _ = match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

/// Takes one event a call, with the line break at its end: that is what the subscriber hands over.
struct Escaped<W>(W, LogFormat);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = if self.1 == LogFormat::Json { json_in_ascii(line) } else { shown(line) } + "\n";
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let kept = Kept::default();
        let own = kept.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || Escaped(own.clone(), format)).with_ansi(false);
        let event = || tracing::warn!(peer = "a\nERROR forged", "failed: {}", "x\n2026 INFO proven\u{1b}[2K\u{202e}");
        match format {
            LogFormat::Text => tracing::subscriber::with_default(subscriber.finish(), event),
            LogFormat::Json => {
                tracing::subscriber::with_default(subscriber.json().flatten_event(true).finish(), event);
            }
        }
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_event_is_one_json_object_whatever_is_in_it() {
        let text = logged(LogFormat::Json);
        assert!(
            text.matches('\n').count() == 1 && text.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{text:?}"
        );
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["peer"], "a\nERROR forged");
        assert_eq!(event["message"], "failed: x\n2026 INFO proven\u{1b}[2K\u{202e}");
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let text = logged(LogFormat::Text);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        // The subscriber has a code of its own for the escape character.
        assert!(
            text.ends_with('\n') && text.contains(r"x\n2026 INFO proven") && text.contains(r"[2K\u{202e}"),
            "{text:?}"
        );
    }
}
