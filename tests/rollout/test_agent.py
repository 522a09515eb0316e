import pytest

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.hf_engine import EngineConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig


def test_a_context_that_the_cache_cannot_hold_is_refused_at_the_start():
    rollout = RolloutConfig(max_tokens=2000)
    with pytest.raises(ConfigError, match=r"kv_cache_tokens: 1999, must hold one context .*2000"):
        AgentConfig(EngineConfig(kv_cache_tokens=1999), rollout=rollout)
    assert AgentConfig(EngineConfig(kv_cache_tokens=2000), rollout=rollout).rollout is rollout
