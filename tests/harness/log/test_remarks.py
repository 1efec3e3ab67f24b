"""What libraries log and nobody needs."""

import logging
import warnings

from memory_harness.harness.log.remarks import quiet_imports, without_remarks


def test_remarks_are_kept_back_and_errors_are_not(caplog):
    logger = logging.getLogger("somebody.else")
    with without_remarks("somebody.else"):
        logger.warning("install this as well")
        logger.error("broken")
    logger.warning("later")
    assert caplog.messages == ["broken", "later"]


def test_what_an_import_asks_for_is_kept_back_and_other_warnings_are_not(caplog):
    with warnings.catch_warnings(record=True) as caught, quiet_imports():
        warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
        logging.getLogger("bitsandbytes.backends.cpu.ops").warning("pip install kernels")
    assert [str(warning.message) for warning in caught] == ["something else"]
    assert not caplog.messages
