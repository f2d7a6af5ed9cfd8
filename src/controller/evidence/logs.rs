//! Logs: the newest lines, in bounded memory.
//!
//! The end is what tells why something fails. A limit of bytes in the request would keep the beginning of the lines
//! asked for, so the log is read as a stream, and what is too old is dropped on the way.

use super::words;
use crate::mitigation::evidence::{MAX_ITEM, newest_lines};
use futures::{AsyncRead, AsyncReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::LogParams};
use tokio::time::{Instant, timeout_at};

/// Lines of a log, from its end.
const MAX_LINES: i64 = 2000;

/// One log of one container.
pub struct Log {
    pod: String,
    container: String,
    previous: bool,
}

impl Log {
    /// Its name in the bundle.
    pub fn item(&self) -> String {
        let which = if self.previous { ".previous" } else { "" };
        format!("pod.{}.{}{which}.log", self.pod, self.container)
    }
}

/// What came of reading a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What was read.
    pub text: Option<String>,
    /// What is missing, and why.
    pub missing: Option<String>,
}

/// The logs that a pod has: the previous one only of a container that was restarted.
pub fn of(pod: &Pod) -> Vec<Log> {
    let status = pod.status.as_ref();
    let statuses = status.into_iter().flat_map(|s| {
        s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten())
    });
    statuses
        .flat_map(|status| {
            let log = |previous| Log { pod: pod.name_any(), container: status.name.clone(), previous };
            let previous = (status.restart_count > 0).then(|| log(true));
            previous.into_iter().chain([log(false)])
        })
        .collect()
}

/// Reads the end of a log. What was read when time is over is kept.
pub async fn read(api: &Api<Pod>, log: &Log, deadline: Instant) -> Answer {
    let params = LogParams {
        container: Some(log.container.clone()),
        previous: log.previous,
        timestamps: true,
        tail_lines: Some(MAX_LINES),
        ..LogParams::default()
    };
    match timeout_at(deadline, api.log_stream(&log.pod, &params)).await {
        Ok(Ok(stream)) => newest(stream, deadline).await,
        Ok(Err(error)) => Answer { text: None, missing: Some(words(error)) },
        Err(_) => Answer { text: None, missing: Some("no answer in time".to_owned()) },
    }
}

async fn newest(stream: impl AsyncRead, deadline: Instant) -> Answer {
    let mut stream = std::pin::pin!(stream);
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 16 * 1024]);
    let missing = loop {
        match timeout_at(deadline, stream.read(&mut chunk)).await {
            Ok(Ok(0)) => break None,
            Ok(Ok(read)) => {
                kept.extend_from_slice(&chunk[..read]);
                if kept.len() > 2 * MAX_ITEM {
                    // One byte more tells that something was cut, and whether that was between two lines.
                    kept.drain(..kept.len() - MAX_ITEM - 1);
                }
            }
            Ok(Err(error)) => break Some(format!("its newest lines, the connection broke: {error}")),
            Err(_) => break Some("its newest lines, there was no time left".to_owned()),
        }
    };
    let text = newest_lines(&String::from_utf8_lossy(&kept), MAX_ITEM).to_owned();
    Answer { text: (missing.is_none() || !text.is_empty()).then_some(text), missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, TryStreamExt, stream};
    use std::time::Duration;

    fn lines(from: usize, to: usize) -> Vec<Result<Vec<u8>, std::io::Error>> {
        (from..to).map(|n| Ok(format!("line {n} {}\n", "x".repeat(200)).into_bytes())).collect()
    }

    #[tokio::test]
    async fn of_a_long_log_the_newest_lines_are_kept() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let answer = newest(stream::iter(lines(0, 5000)).into_async_read(), deadline).await;
        let text = answer.text.expect("it was read");
        assert_eq!(answer.missing, None);
        assert!(text.len() <= MAX_ITEM && text.len() > MAX_ITEM - 256, "{}", text.len());
        assert!(text.lines().last().is_some_and(|line| line.starts_with("line 4999 ")), "{text}");
        // Half a line may be half a secret.
        assert!(text.starts_with("line "), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_when_time_was_over_is_kept_and_the_rest_told_as_missing() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let endless = stream::iter(lines(0, 3)).chain(stream::pending());
        let answer = newest(endless.into_async_read(), deadline).await;
        assert!(answer.text.is_some_and(|text| text.contains("line 2 ")));
        assert!(answer.missing.is_some_and(|why| why.contains("no time left")));
        let nothing = newest(stream::pending::<Result<Vec<u8>, _>>().into_async_read(), deadline).await;
        assert_eq!(nothing.text, None);
    }
}
