"""What a plan is worth: importance of channels, scores of plans, predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.evaluation.criteria import CRITERIA as CRITERIA
    from compress.evaluation.criteria import CriterionInputs as CriterionInputs
    from compress.evaluation.criteria import elimination_importance as elimination_importance
    from compress.evaluation.criteria import gather as gather
    from compress.evaluation.criteria import importance as importance
    from compress.evaluation.criteria import kernels as kernels
    from compress.evaluation.criteria import l1 as l1
    from compress.evaluation.criteria import obs_and_curves as obs_and_curves
    from compress.evaluation.criteria import obs_curve as obs_curve
    from compress.evaluation.evaluator import CACHE as CACHE
    from compress.evaluation.evaluator import Evaluator as Evaluator
    from compress.evaluation.evaluator import Material as Material
    from compress.evaluation.evaluator import logits as logits
    from compress.evaluation.leaving_out import branch_errors as branch_errors
    from compress.evaluation.output_error import outputs_apart as outputs_apart
    from compress.evaluation.output_error import outputs_of as outputs_of
    from compress.evaluation.predictions import AGREEMENT as AGREEMENT
    from compress.evaluation.predictions import OUTPUT_ERROR as OUTPUT_ERROR
    from compress.evaluation.predictions import Agreement as Agreement
    from compress.evaluation.predictions import JudgedTest as JudgedTest
    from compress.evaluation.predictions import agreements as agreements
    from compress.evaluation.predictions import blind as blind
    from compress.evaluation.predictions import certify as certify
    from compress.evaluation.predictions import change_of as change_of
    from compress.evaluation.predictions import on_test as on_test
    from compress.evaluation.predictions import paired_difference as paired_difference
    from compress.evaluation.predictions import predict as predict
    from compress.evaluation.predictions import read_predictions as read_predictions
    from compress.evaluation.predictions import save_predictions as save_predictions
    from compress.evaluation.predictions import unseen as unseen
    from compress.evaluation.reader_losses import closed_form as closed_form
    from compress.evaluation.scores import score_on as score_on
    from compress.evaluation.stage_runner import StageRunner as StageRunner
    from compress.evaluation.stage_runner import cutout as cutout
    from compress.evaluation.storing import Stored as Stored
    from compress.evaluation.storing import store as store
    from compress.evaluation.synthetic_images import matched_inputs as matched_inputs
    from compress.evaluation.top1 import accuracy as accuracy
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "leaving_out": "branch_errors",
            "criteria": "CRITERIA CriterionInputs elimination_importance gather importance kernels l1 obs_and_curves obs_curve",
            "evaluator": "CACHE Evaluator Material logits",
            "output_error": "outputs_apart outputs_of",
            "predictions": "AGREEMENT Agreement JudgedTest OUTPUT_ERROR agreements blind certify change_of on_test "
            "paired_difference predict read_predictions save_predictions unseen",
            "reader_losses": "closed_form",
            "scores": "score_on",
            "stage_runner": "StageRunner cutout",
            "storing": "Stored store",
            "synthetic_images": "matched_inputs",
            "top1": "accuracy",
        },
    )
