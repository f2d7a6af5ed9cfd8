//! Asks the API server who may do what, right before it is done.

use super::Error;
use crate::decide::access::{Answers, Question};
use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, ResourceAttributes, SubjectAccessReviewSpec,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

/// Asks all at the same time. An answer of the past is worth nothing, so none is kept.
///
/// A review of one namespace: the right to ask is then a right in that namespace, which a Role can give.
pub async fn ask(client: &Client, namespace: &str, questions: Vec<Question>) -> Result<Answers, Error> {
    let api: Api<LocalSubjectAccessReview> = Api::namespaced(client.clone(), namespace);
    let all = questions.into_iter().map(|question| async {
        let what = || format!("asking whether {} may {}", question.subject.user, question.need);
        let review = review(namespace, &question);
        let answer = api.create(&PostParams::default(), &review).await.map_err(Error::api(what()))?;
        Ok::<_, Error>((question, answer.status.is_some_and(|status| status.allowed)))
    });
    Ok(try_join_all(all).await?.into_iter().collect())
}

fn review(namespace: &str, question: &Question) -> LocalSubjectAccessReview {
    let right = question.need.right;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    LocalSubjectAccessReview {
        metadata: ObjectMeta { namespace: some(namespace), ..ObjectMeta::default() },
        spec: SubjectAccessReviewSpec {
            user: some(&question.subject.user),
            groups: Some(question.subject.groups.clone()),
            resource_attributes: Some(ResourceAttributes {
                namespace: some(namespace),
                verb: some(right.verb),
                group: some(right.group),
                resource: some(right.resource),
                subresource: some(right.subresource),
                name: some(&question.need.name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        status: None,
    }
}
