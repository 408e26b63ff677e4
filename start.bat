@echo off
rem Starts the whole platform of config.json on Windows. start.bat --help says more; docs\windows.md says what is missing.
setlocal enabledelayedexpansion
cd /d "%~dp0"

if not defined OMNI_VENV set "OMNI_VENV=.venv"
set "VENV_PYTHON=%OMNI_VENV%\Scripts\python.exe"
set "STAMP=%OMNI_VENV%\omni-requirements.txt"

if exist "%VENV_PYTHON%" if exist "%STAMP%" (
  fc /b requirements.txt "%STAMP%" >nul 2>&1 && goto start
)

set "PYTHON=%OMNI_PYTHON%"
if not defined PYTHON (
  py -3.11 -c "" >nul 2>&1 && set "PYTHON=py -3.11"
)
if not defined PYTHON (
  python -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>&1 && set "PYTHON=python"
)
if not defined PYTHON (
  echo Python 3.11 or newer is needed and was not found. Install it, or name it by OMNI_PYTHON. 1>&2
  exit /b 1
)

if not exist "%VENV_PYTHON%" (
  echo   making the virtual environment %OMNI_VENV%
  %PYTHON% -m venv "%OMNI_VENV%" || exit /b 1
)
echo   installing the requirements ^(only when they have changed; about a minute^)
findstr /v /b "mysqlclient" requirements.txt > "%OMNI_VENV%\requirements-without-mysqlclient.txt"
"%VENV_PYTHON%" -m pip install --quiet --no-input --disable-pip-version-check -r "%OMNI_VENV%\requirements-without-mysqlclient.txt" || exit /b 1
rem PyMySQL serves on Windows; mysqlclient would need a compiler.
copy /y requirements.txt "%STAMP%" >nul

:start
"%VENV_PYTHON%" -m omni.launch %*
exit /b %ERRORLEVEL%
