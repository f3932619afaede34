//! The control thread: one tokio runtime for what waits on the network but is no mail.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::admin::Admin;
use super::resolver::{Questions, Resolver, ResolverError, questions};
use crate::model::connection::ShardId;
use crate::model::route::Answer;
use crate::model::settings::DnsSettings;
use crate::shard::QuestionId;

/// The thread, and the way to it.
pub(super) struct ControlThread {
    questions: Questions,
    thread: JoinHandle<()>,
}

/// Why there is no control thread.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    #[error(transparent)]
    Thread(#[from] io::Error),
}

impl ControlThread {
    /// Starts it. Each question is answered once, on this thread; so are an operator's.
    pub(super) fn start(
        settings: &DnsSettings,
        admin: Option<Admin>,
        answer: impl Fn(ShardId, QuestionId, Arc<Answer>) + Send + 'static,
    ) -> Result<Self, ControlError> {
        let resolver = Resolver::new(settings)?;
        let (questions, inbox) = questions();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(async move {
                if let Some(admin) = admin {
                    tokio::spawn(admin.serve());
                }
                resolver.run(inbox, answer).await;
            });
        })?;
        Ok(Self { questions, thread })
    }

    pub(super) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Waits for its end, which comes once the shards have ended.
    pub(super) fn stop(self) {
        drop(self.questions);
        if self.thread.join().is_err() {
            tracing::error!("the control thread had died");
        }
    }
}
