"""What libraries log and nobody needs."""

import logging

from memory_harness.harness.log.remarks import without_remarks


def test_remarks_are_kept_back_and_errors_are_not(caplog):
    logger = logging.getLogger("somebody.else")
    with without_remarks("somebody.else"):
        logger.warning("install this as well")
        logger.error("broken")
    logger.warning("later")
    assert caplog.messages == ["broken", "later"]
